"""What shards hold, against dense references from the codes and the tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ask.tables import ITEMS
from browse.gathering.blind import N_LATENTS, blind_shards
from browse.gathering.debt import inside_of
from browse.gathering.grouped import Grouped, records
from browse.gathering.latents.catalogue import principal_plane
from browse.gathering.latents.neighbours import N_NEIGHBOURS, unit_rows
from browse.gathering.library import Library
from browse.gathering.opened import OpenedRun, OpenedSae
from browse.gathering.profiles import N_TIME_BINS, heat
from browse.gathering.videos import predicted
from browse.shards import encode
from collect.artefact.folder import write_table
from collect.data.annotation import Segment, Track, Video
from collect.process.provenance import installed_versions
from features.encoding import encode_store
from features.labels.unit_labels import Space
from features.moments import MOMENTS, describe_moments, find_moments
from steer.tables import EFFECTS, SWEEP
from tests.small_run import D_SAE, SAE_NAME
from tests.steer.effect_rows import row
from tests.steer.finished_run import BALL, BALL_LABEL, CUP, UNLABELLED
from train_sae.sae import load_sae


@pytest.fixture(scope="module")
def sae(library: Library) -> OpenedSae:
    found = library.sae(SAE_NAME)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def pages(library: Library) -> list[dict[str, Any]]:
    shard = library.shard(f"{SAE_NAME}/latent/0")
    assert shard is not None
    return list(shard.columns["json"].values)


@pytest.fixture(scope="module")
def dense(sae: OpenedSae) -> np.ndarray:
    """Activations [token, latent]."""
    return sae.codes.rows(0, sae.codes.n_tokens).toarray()


def test_every_named_shard_can_be_made(library: Library) -> None:
    names = list(library.names())
    assert len(set(names)) == len(names)
    for name in names:
        shard = library.shard(name)
        assert shard is not None, name
        assert "error" not in shard.meta
        assert encode(name, shard)


def test_the_run_says_what_there_is(library: Library, finished: Path) -> None:
    shard = library.shard("run")
    assert shard is not None
    meta = shard.meta
    assert meta["name"] == "my <run>"
    assert (meta["n_videos"], meta["has_videos"], meta["has_annotations"]) == (8, True, True)
    assert meta["version"] == installed_versions()["video-sae"]
    assert {stage["stage"]: stage["state"] for stage in meta["stages"]} == dict.fromkeys(
        ("profile", "collect", "train", "features", "steer"), "finished"
    )
    (sae,) = meta["saes"]
    assert (sae["features"], sae["n_latents"], sae["has_effects"], sae["baseline"]) == (True, D_SAE, True, None)
    assert str(finished.parent) not in json.dumps(meta)  # where the run lies is nobody else's business


def test_the_overview_has_a_row_per_latent_with_its_largest_effect(library: Library, sae: OpenedSae) -> None:
    shard = library.shard(f"{SAE_NAME}/latents")
    assert shard is not None
    columns = {name: column.decoded() for name, column in shard.columns.items()}
    assert columns["latent"] == list(range(D_SAE))
    assert columns["top_label"][BALL] == BALL_LABEL
    assert columns["labelled"] == [int(latent in (BALL, CUP)) for latent in range(D_SAE)]
    assert columns["top_auroc"][CUP] == pytest.approx(0.91, abs=1e-5)
    effects = sae.effects
    assert effects is not None
    rows = effects.tables["latent_subjects"]
    rows = rows[(rows["scope"] == "subject") & (rows["latent"] == BALL)]
    largest = rows.loc[rows["delta_margin"].abs().idxmax()]
    assert columns["effect"][BALL] == pytest.approx(largest["delta_margin"], abs=1e-3)
    assert columns["effect_subject"][BALL] == largest["name"]
    claims = effects.tables["claims"].set_index(["target", "operation"])
    assert columns["effect_held_out"][UNLABELLED] == pytest.approx(
        claims.loc[(str(UNLABELLED), "ablate"), "delta_margin"], abs=1e-3
    )
    described = {column["name"] for column in shard.meta["columns"]}
    assert described == set(columns)
    assert {label["label"]: label["n_named"] for label in shard.meta["labels"]} == {BALL_LABEL: 1, "cup": 1}


def test_the_map_is_the_plane_of_largest_variance() -> None:
    rng = np.random.default_rng(0)
    decoder = rng.standard_normal((60, 7)).astype(np.float32) * np.array([5, 3, 1, 1, 1, 0.5, 0.2], dtype=np.float32)
    unit = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    _, values, _ = np.linalg.svd(centred, full_matrices=False)
    plane = principal_plane(decoder)
    np.testing.assert_allclose(np.linalg.norm(plane, axis=0), values[:2], rtol=1e-4)
    assert principal_plane(np.ones((3, 1), dtype=np.float32)).shape == (3, 2)


def test_moments_heat_and_timelines_are_the_activations(
    pages: list[dict[str, Any]], sae: OpenedSae, dense: np.ndarray
) -> None:
    n_checked = 0
    for page in pages:
        own = dense[:, page["latent"]]
        assert page["max_activation"] == pytest.approx(own.max(), rel=1e-4)
        for moment in page["moments"]:
            record = sae.run.record_of[moment["video"]]
            grid = record.grid
            clip = own[record.row_start : record.row_stop].reshape(grid.n_t, -1)
            np.testing.assert_allclose(moment["per_frame"], clip.max(axis=1), rtol=1e-3)
            drawn = np.zeros_like(clip)
            drawn[moment["heat"]["t"], moment["heat"]["token"]] = moment["heat"]["value"]
            np.testing.assert_allclose(
                drawn, np.where(clip > 0, np.clip(np.rint(255 * clip / own.max()), 1, 255), 0), atol=1
            )
            peak = moment["peak"]
            assert clip[peak["t"]].argmax() == peak["row"] * grid.n_cols + peak["col"]
            np.testing.assert_allclose(peak["box"], grid.box(peak["row"], peak["col"]), rtol=1e-4)
            assert moment["t0"] <= peak["t"] <= moment["t1"]
            assert moment["media"] == f"media/clips/{moment['video']}.mp4"
            n_checked += 1
    assert n_checked > 100


def test_heat_keeps_the_strongest_patches_and_those_of_the_moment_first() -> None:
    rank = np.arange(6)
    value = np.array([9, 8, 7, 1, 2, 3], dtype=np.float32)
    assert heat(rank, value, 2, 9.0, most=3) == {"t": [0, 0, 1], "token": [0, 1, 0], "value": [255, 227, 198]}
    assert heat(rank, value, 2, 9.0, (2, 2), most=3) == {"t": [0, 2, 2], "token": [0, 0, 1], "value": [255, 57, 85]}


def test_histogram_place_and_time(pages: list[dict[str, Any]], sae: OpenedSae, dense: np.ndarray) -> None:
    grids = [video.grid for video in sae.run.videos]
    n_rows, n_cols, n_t = grids[0].n_rows, grids[0].n_cols, grids[0].n_t
    clips = dense.reshape(len(grids), n_t, n_rows, n_cols, D_SAE)
    for page in pages:
        own = clips[..., page["latent"]]
        assert sum(page["histogram"]["counts"]) == (own > 0).sum()
        np.testing.assert_allclose(page["place"], own.mean(axis=(0, 1)), rtol=2e-3, atol=1e-9)
        known = [value for value in page["time"] if value is not None]
        assert len(page["time"]) == N_TIME_BINS
        np.testing.assert_allclose(known, own.mean(axis=(0, 2, 3)), rtol=2e-3, atol=1e-9)


def test_neighbours_are_those_of_all_pairs(pages: list[dict[str, Any]], sae: OpenedSae, dense: np.ndarray) -> None:
    assert sae.decoder is not None
    unit = unit_rows(sae.decoder)
    cosine = unit @ unit.T
    fires = dense > 0
    for page in pages:
        latent = page["latent"]
        line = cosine[latent].copy()
        line[latent] = -2
        found = page["neighbours"]["decoder"]
        assert len(found) == N_NEIGHBOURS
        np.testing.assert_allclose([each["cosine"] for each in found], np.sort(line)[::-1][:N_NEIGHBOURS], rtol=1e-3)
        both = (fires & fires[:, [latent]]).sum(axis=0)
        jaccard = both / np.maximum((fires | fires[:, [latent]]).sum(axis=0), 1)
        jaccard[latent] = 0
        for each in page["neighbours"]["cofiring"]:
            assert each["n"] == both[each["latent"]]
            assert each["jaccard"] == pytest.approx(jaccard[each["latent"]], rel=1e-3)
        best = np.sort(jaccard)[::-1][: len(page["neighbours"]["cofiring"])]
        np.testing.assert_allclose([each["jaccard"] for each in page["neighbours"]["cofiring"]], best, rtol=1e-3)


def test_effects_doses_and_claims_are_the_tables_rows(pages: list[dict[str, Any]], sae: OpenedSae) -> None:
    effects = sae.effects
    assert effects is not None
    page = pages[BALL]
    held = [effect for effect in page["effects"] if not effect["train"]]
    table = effects.tables["target_subjects"]
    table = table[(table["target"] == str(BALL)) & (table["operation"] == "ablate")]
    assert {effect["subject"]: effect["delta_margin"] for effect in held} == {
        subject: pytest.approx(delta) for subject, delta in zip(table["subject"], table["delta_margin"], strict=True)
    }
    assert [(dose["operation"], dose["strength"], dose["delta_margin"]) for dose in page["doses"]] == [
        ("ablate", 0.0, -0.5),
        ("scale", 2.0, 0.4),
    ]
    limit = effects.tables["summary"].set_index(["target", "operation"]).loc[(str(BALL), "ablate"), "control_max"]
    assert page["doses"][0]["control_high"] == pytest.approx(limit)
    assert page["doses"][0]["control_low"] == pytest.approx(-limit)
    claims = effects.tables["claims"]
    assert [claim["claim"] for claim in page["claims"]] == claims.loc[claims["target"] == str(BALL), "claim"].tolist()
    assert pages[0]["claims"] == []


def test_the_largest_effects_on_single_questions_are_listed(copy: Path) -> None:
    folder = copy / "steer" / SAE_NAME
    known = {"attribution": 0.0}
    swept = [
        row(
            SWEEP,
            **known,
            latent=BALL,
            item=f"video_{video}/0",
            video_id=f"video_{video}",
            method="exact",
            delta_margin=-video,
        )
        for video in range(4)
    ]
    swept.append(
        row(SWEEP, **known, latent=BALL, item="video_0/1", video_id="video_0", method="screened", delta_margin=None)
    )
    edited = [
        row(EFFECTS, target=str(BALL), operation=operation, item="video_7/0", video_id="video_7", delta_margin=delta)
        for operation, delta in (("ablate", 2.5), ("scale:2", 9.0))
    ]
    write_table(folder / "sweep.parquet", pd.DataFrame(swept, columns=SWEEP.names), SWEEP)
    write_table(folder / "effects.parquet", pd.DataFrame(edited, columns=EFFECTS.names), EFFECTS)
    library = Library(OpenedRun(copy))
    shard = library.shard(f"{SAE_NAME}/latent/0")
    assert shard is not None
    items = shard.columns["json"].values[BALL]["items"]
    assert [(item["item"], item["delta_margin"], item["held_out"]) for item in items] == [
        ("video_3/0", -3.0, False),
        ("video_7/0", 2.5, True),
        ("video_2/0", -2.0, False),
        ("video_1/0", -1.0, False),
        ("video_0/0", 0.0, False),
    ]
    video = library.shard("video/video_7")
    assert video is not None
    question = next(each for each in video.meta["questions"] if each["item"] == "video_7/0")
    assert [(edit["operation"], edit["delta_margin"]) for edit in question["edited"]] == [
        ("scale:2", 9.0),
        ("ablate", 2.5),
    ]
    assert question["right"] == pytest.approx(1 / 3, rel=1e-4)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"accuracy": 1.0, "answer_id": 2, "expected_count": 1.0}, 2),
        ({"accuracy": 0.0, "answer_id": 2, "expected_count": 1.9}, 1),
        ({"accuracy": 0.0, "answer_id": 2, "expected_count": None, "values": None}, None),
        ({"accuracy": 1 / 3, "answer_id": 0, "expected_count": float("nan")}, None),
    ],
)
def test_the_chosen_option(values: dict[str, Any], wanted: int | None) -> None:
    assert predicted(row(ITEMS, **{"values": [1.0, 2.0, 3.0], **values})) == wanted


def test_what_fires_on_a_video(library: Library, sae: OpenedSae, dense: np.ndarray) -> None:
    record = sae.run.record_of["video_5"]
    shard = library.shard(f"{SAE_NAME}/video/video_5")
    assert shard is not None
    own = dense[record.row_start : record.row_stop]
    usual = sae.tables["catalogue"]["mean_active"].to_numpy()
    ratio = own.max(axis=0) / usual
    fires = np.flatnonzero(own.max(axis=0) > 0)
    order = fires[np.argsort(-ratio[fires], kind="stable")]
    columns = {name: column.decoded() for name, column in shard.columns.items()}
    assert columns["latent"] == order.tolist()
    np.testing.assert_allclose(columns["ratio"], ratio[order], rtol=1e-6)
    np.testing.assert_allclose(columns["peak"], own.max(axis=0)[order])
    assert columns["n_tokens"] == (own > 0).sum(axis=0)[order].tolist()
    assert dict(zip(columns["latent"], columns["label"], strict=True)).get(BALL, BALL_LABEL) == BALL_LABEL


def test_tasks_are_questions_over_their_videos(library: Library) -> None:
    shard = library.shard("tasks")
    assert shard is not None
    tasks = {task["kind"]: task for task in shard.columns["json"].values}
    assert list(tasks) == ["action counting", "object counting", "colour"]  # counting questions come first
    objects = tasks["object counting"]
    assert (objects["n_videos"], len(objects["items"])) == (8, 8)
    assert objects["accuracy"] == pytest.approx((7 + 1 / 3) / 8, rel=1e-4)
    assert objects["accuracy_low"] <= objects["accuracy"] <= objects["accuracy_high"]
    assert objects["baselines"]["chance"] == pytest.approx(1 / 3, rel=1e-4)
    assert {latent["claim"] for latent in objects["latents"]} <= {
        latent["claim"] for latent in tasks["object counting"]["latents"]
    }


def test_features_moments_are_taken_as_they_are(copy: Path) -> None:
    run = OpenedRun(copy)
    sae = run.sae(SAE_NAME)
    assert sae is not None
    found = sae.moments(range(D_SAE)).reset_index(drop=True)
    assert len(found)
    table = describe_moments(find_moments(sae.codes, run.videos, seed=sae.seed), run.videos, run.held_out)
    write_table(copy / "features" / SAE_NAME / "moments.parquet", table, MOMENTS)
    written = OpenedRun(copy).sae(SAE_NAME)
    assert written is not None
    pd.testing.assert_frame_equal(written.moments(range(D_SAE)).reset_index(drop=True), found, check_dtype=False)
    part = written.moments(range(3, 5))
    assert set(part["latent"]) <= {3, 4}


# --- The blind test and the annotation debt ---------------------------------------------------------------------------


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
    inside = inside_of(video, record, "tapping", Space("action", "frame")).reshape(grid.n_t, -1)
    assert inside[0].all()
    assert not inside[1:].any()


# --- Runs that are not finished -----------------------------------------------------------------------------------


def test_a_run_that_has_only_begun(copy: Path) -> None:
    for name in ("steer", "features", "profile", "activations"):
        for file in ("summary.json", "manifest.json"):
            for path in (copy / name).rglob(file):
                path.unlink()
    library = Library(OpenedRun(copy))
    assert list(library.names()) == ["run", "videos", "tasks"]
    run = library.shard("run")
    assert run is not None
    states = {stage["stage"]: stage["state"] for stage in run.meta["stages"]}
    assert (states["train"], states["features"], states["steer"]) == ("finished", "unfinished", "unfinished")
    assert run.meta["saes"][0]["features"] is False
    for name in library.names():
        shard = library.shard(name)
        assert shard is not None
        assert encode(name, shard)


def test_an_empty_folder_is_a_run_without_anything(tmp_path: Path) -> None:
    library = Library(OpenedRun(tmp_path))
    run = library.shard("run")
    assert run is not None
    assert run.meta["saes"] == []
    assert run.meta["n_videos"] == 0


def test_without_effects_and_without_videos(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "steer")
    elsewhere = tmp_path / "gone"
    elsewhere.mkdir()
    run = OpenedRun(copy, data=elsewhere)
    library = Library(run)
    assert run.data_missing is not None
    shard = library.shard(f"{SAE_NAME}/latent/0")
    assert shard is not None
    page = shard.columns["json"].values[BALL]
    assert page["effects"] == []
    assert page["doses"] == []
    overview = library.shard(f"{SAE_NAME}/latents")
    assert overview is not None
    assert "effect" not in overview.columns
    debt = library.shard(f"{SAE_NAME}/debt/object~3A~20cup")
    assert debt is not None
    assert debt.meta["why"]


def test_a_table_by_key_keeps_its_rows_as_they_are() -> None:
    table = pd.DataFrame(
        {
            "key": ["b", "a", "b"],
            "n": [1, 2, 3],
            "text": ["x", None, "y"],
            "real": [0.5, None, 2.0],
            "also": [[1], [], [2]],
        }
    )
    grouped = Grouped(table, "key", ["n", "text", "also"])
    assert grouped.rows("b") == [{"n": 1, "text": "x", "also": [1]}, {"n": 3, "text": "y", "also": [2]}]
    assert grouped.rows("a") == [{"n": 2, "text": None, "also": []}]
    assert grouped.rows("c") == []
    assert [each["n"] for each in records(table)] == [1, 2, 3]
