"""The blind test and the annotation debt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from browse.gathering.blind import N_LATENTS, blind_shards
from browse.gathering.debt import inside_of
from browse.gathering.library import Library
from browse.gathering.opened import OpenedRun, OpenedSae
from collect.data.annotation import Segment, Track, Video
from features.encoding import encode_store
from features.labels.labelling import label_video
from features.labels.unit_labels import Space
from tests.small_run import D_SAE, SAE_NAME
from tests.steer.finished_run import CUP
from train_sae.sae import load_sae


@pytest.fixture
def with_baseline(copy: Path) -> OpenedSae:
    """A run whose features also encoded a baseline: the same SAE with its latents in another order."""
    run = OpenedRun(copy)
    sae = run.sae(SAE_NAME)
    assert sae is not None
    original = load_sae(copy / "sae" / SAE_NAME)
    order = torch.randperm(D_SAE, generator=torch.Generator().manual_seed(1))
    import dataclasses

    shuffled = dataclasses.replace(
        original, W_enc=original.W_enc[:, order], W_dec=original.W_dec[order], b_enc=original.b_enc[order]
    )
    folder = copy / "features" / SAE_NAME / "baseline"
    folder.mkdir()
    store = run.required_store
    encode_store(store, shuffled, folder / "codes.zarr", batch_size=64, device=torch.device("cpu"))
    found = OpenedRun(copy).sae(SAE_NAME)
    assert found is not None
    return found


def test_the_blind_test_hides_what_it_asks_for(with_baseline: OpenedSae, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browse.gathering.blind.N_REFERENCES", 1)
    monkeypatch.setattr("browse.gathering.blind.N_SHOWN", 2)
    shard, key = blind_shards(with_baseline, SAE_NAME)
    assert (shard, key) == blind_shards(with_baseline, SAE_NAME)
    trials, answers = shard.meta["trials"], {each["id"]: each for each in key.meta["trials"]}
    assert trials
    assert {each["source"] for each in answers.values()} == {"trained", "baseline"}
    baseline = with_baseline.baseline
    assert baseline is not None
    for trial in trials:
        told = answers[trial["id"]]
        owner = with_baseline if told["source"] == "trained" else baseline
        assert told["sae"] == (SAE_NAME if told["source"] == "trained" else f"{SAE_NAME}~baseline")
        activations = owner.codes.columns(np.array([told["latent"]])).toarray()[:, 0]
        for moment, is_positive in [
            *((moment, True) for moment in trial["reference_positive"]),
            *((moment, False) for moment in trial["reference_negative"]),
            *((moment, place == told["answer"]) for place, moment in enumerate(trial["query"])),
        ]:
            record = owner.run.record_of[moment["video"]]
            clip = activations[record.row_start : record.row_stop].reshape(record.grid.n_t, -1)
            assert (clip[moment["t0"] : moment["t1"] + 1].max() > 0) == is_positive
            assert set(moment) == {"video", "t0", "t1", "start_s", "stop_s", "media", "still"}
        import hashlib

        secret = f"{key.meta['salt']}:{trial['id']}:{told['answer']}:{told['source']}"
        assert trial["key"] == hashlib.sha256(secret.encode()).hexdigest()
    assert len(trials) <= 2 * N_LATENTS
    text = json.dumps(shard.meta)
    assert key.meta["salt"] not in text
    assert "baseline" not in text


def test_without_a_baseline_the_blind_test_says_why(library: Library) -> None:
    shard = library.shard(f"{SAE_NAME}/blind")
    assert shard is not None
    assert shard.meta["trials"] == []
    assert "--baseline" in shard.meta["why"]


def test_a_baseline_has_shards_of_its_own(with_baseline: OpenedSae) -> None:
    library = Library(with_baseline.run)
    names = [name for name in library.names() if "~baseline" in name]
    assert f"{SAE_NAME}~baseline/latents" in names
    shard = library.shard(f"{SAE_NAME}~baseline/latents")
    assert shard is not None
    assert shard.n_rows == D_SAE
    assert "top_label" not in shard.columns
    assert shard.columns["firing_rate"].numbers().sum() > 0
    page = library.shard(f"{SAE_NAME}~baseline/latent/0")
    assert page is not None
    assert page.columns["json"].values[0]["associations"] == []


def test_firings_outside_every_box_of_a_label(copy: Path, tmp_path: Path) -> None:
    run = OpenedRun(copy)
    source = run.video_path("video_0")
    assert source is not None
    data = Path(shutil.copytree(source.parents[1], tmp_path / "data"))
    path = data / "annotations" / "all.json"
    content = json.loads(path.read_text())
    half = [0.0, 0.0, 0.5, 1.0]  # the left half of the frame, all the time
    for video in content.values():
        video["object_tracking"] = [
            {
                "id": 0,
                "label": "cup",
                "bounding_boxes": [half, half],
                "frame_ids": [0, 3],
                "timestamps": [0, 100_000],
                "is_masked": [0, 0],
                "is_occluder": 0,
            }
        ]
    path.write_text(json.dumps(content))
    for stage in ("features", "steer"):  # which were made from other annotations
        config = copy / stage / SAE_NAME / "config.json"
        said = json.loads(config.read_text())
        said.pop("checksum")
        said["inputs"] = {}
        config.write_text(json.dumps(said))
    library = Library(OpenedRun(copy, data=data))
    sae = library.sae(SAE_NAME)
    assert sae is not None
    shard = library.shard(f"{SAE_NAME}/debt/object~3A~20cup")
    assert shard is not None
    assert shard.meta["why"] is None
    (row_,) = shard.columns["json"].values
    token, value = sae.codes.column(CUP)
    record = sae.run.videos[0]
    col = (token % (record.grid.n_rows * record.grid.n_cols)) % record.grid.n_cols
    left = record.grid.col_spans[col, 0] < 0.5
    assert (row_["latent"], row_["inside"], row_["outside"]) == (CUP, int(left.sum()), int((~left).sum()))
    strongest = max(value[~left], default=0.0)
    assert row_["moments"][0]["activation"] == pytest.approx(strongest, rel=1e-4)
    for moment in row_["moments"]:
        assert moment["peak"]["box"][2] > 0.5


def test_labels_of_frames_cover_all_their_tokens(sae: OpenedSae) -> None:
    record = sae.run.videos[0]
    grid = record.grid
    ends = float(grid.spans_s[0, 1])
    segment = Segment(id=0, label="tapping", label_id=0, parent_objects=(), start_s=0.0, end_s=ends)
    video = Video(
        video_id=record.video_id,
        path=None,
        split="train",
        frame_rate=30.0,
        n_frames=4,
        height=32,
        width=40,
        tracks=(
            Track(
                id=0,
                label="cup",
                is_occluder=False,
                is_masked=np.zeros(1, dtype=bool),
                boxes=np.array([[0.0, 0.0, 0.1, 0.1]]),
                frame_ids=np.array([0]),
                times_s=np.array([0.0]),
            ),
        ),
        actions=(segment,),
    )
    space = Space("action", "frame")
    labels = label_video(video, grid, {space: ("sitting", "tapping")})[space]
    inside = inside_of(labels, 1, record).reshape(grid.n_t, -1)
    assert not inside_of(labels, 0, record).any()
    assert inside[0].all()
    assert not inside[1:].any()
