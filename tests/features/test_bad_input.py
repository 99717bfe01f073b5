"""The whole stage on data as people have it: each oddity gives the right tables, or a sentence that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from collect.artefact.folder import read_table
from collect.errors import UserError
from features.catalogue import ASSOCIATIONS, CATALOGUE, EXEMPLARS
from features.config import FeaturesConfig
from features.run import features
from tests.features.conftest import (
    BALL,
    CUBE,
    D_SAE,
    SITE,
    PlantedVideo,
    planted_sae,
    write_data,
    write_store,
)
from train_sae.lens.export import save_sae
from train_sae.sae import Sae

N_VIDEOS = 24
Entry = dict[str, Any]


@pytest.fixture(scope="module")
def videos(planted: list[PlantedVideo]) -> list[PlantedVideo]:
    return planted[:N_VIDEOS]


def make_run(folder: Path, videos: list[PlantedVideo], edit: Callable[[str, Entry], None] | None = None) -> Path:
    """A run of some videos, whose annotations are edited one by one, given the id and the entry."""
    data = write_data(folder / "data", videos, with_videos=0)
    path = data / "annotations" / "all.json"
    content = json.loads(path.read_text())
    for video_id, entry in content.items():
        if edit is not None:
            edit(video_id, entry)
    path.write_text(json.dumps(content))
    write_store(folder / "run" / "activations", videos, rotated=True, data=data)
    save_sae(folder / "run" / "sae" / "planted", planted_sae(rotated=True), torch.full((D_SAE,), 0.1))
    return folder / "run"


def config_of(run: Path, **options: Any) -> FeaturesConfig:
    defaults: dict[str, Any] = {
        "min_videos": 2,
        "permutations": 59,
        "bootstraps": 40,
        "controls": 8,
        "media": 0,
        "options": ("min_explained=0.1",),
    }
    return FeaturesConfig(run=run, **{**defaults, **options})


def tables_of(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The catalogue and the associations, which keep the rules of their schemas."""
    read_table(folder / "exemplars.parquet", EXEMPLARS)
    return read_table(folder / "catalogue.parquet", CATALOGUE), read_table(
        folder / "associations.parquet", ASSOCIATIONS
    )


def names_of(catalogue: pd.DataFrame) -> dict[int, str]:
    named = catalogue[catalogue["labelled"]]
    return dict(zip(named["latent"].tolist(), named["top_label"].tolist(), strict=True))


def test_segments_whose_parents_are_missing_label_their_frames_and_no_token(
    videos: list[PlantedVideo], tmp_path: Path
) -> None:
    def edit(_: str, entry: Entry) -> None:
        for segment in entry["action_localisation"]:
            segment["parent_objects"] = [77, -1]  # no track has this id

    catalogue, associations = tables_of(features(config_of(make_run(tmp_path, videos, edit))))
    assert names_of(catalogue)[BALL] == "red ball"
    tested = associations[associations["kind"] == "action"]
    assert "clapping" in set(tested["label"])
    assert set(tested["level"]) == {"frame"}


def test_segments_without_the_field_of_their_parents_are_the_same(videos: list[PlantedVideo], tmp_path: Path) -> None:
    def edit(_: str, entry: Entry) -> None:
        for segment in entry["action_localisation"]:
            del segment["parent_objects"]

    _, associations = tables_of(features(config_of(make_run(tmp_path, videos, edit))))
    assert set(associations.loc[associations["kind"] == "action", "level"]) == {"frame"}


def test_tracks_without_frames_are_no_objects(videos: list[PlantedVideo], tmp_path: Path) -> None:
    def edit(_: str, entry: Entry) -> None:
        nothing: dict[str, list[Any]] = {
            name: [] for name in ("bounding_boxes", "frame_ids", "timestamps", "initial_tracking_box")
        }
        entry["object_tracking"].append({"id": 30, "label": "ghost", "is_occluder": 0, "is_masked": [], **nothing})

    catalogue, associations = tables_of(features(config_of(make_run(tmp_path, videos, edit))))
    assert (names_of(catalogue)[BALL], names_of(catalogue)[CUBE]) == ("red ball", "blue cube")
    assert not associations["label"].str.contains("ghost").any()


def test_labels_from_right_to_left_are_names_like_others(videos: list[PlantedVideo], tmp_path: Path) -> None:
    def edit(_: str, entry: Entry) -> None:
        entry["object_tracking"][0]["label"] = "كرة"
        entry["object_tracking"][1]["label"] = "קובייה כחולה"

    catalogue, _ = tables_of(features(config_of(make_run(tmp_path, videos, edit))))
    assert (names_of(catalogue)[BALL], names_of(catalogue)[CUBE]) == ("كرة", "קובייה כחולה")


def test_videos_without_tracks_give_objects_no_units(videos: list[PlantedVideo], tmp_path: Path) -> None:
    without = {item.video.video_id for item in videos[::3]}

    def edit(video_id: str, entry: Entry) -> None:
        if video_id in without:
            entry["object_tracking"] = []

    catalogue, associations = tables_of(features(config_of(make_run(tmp_path, videos, edit))))
    assert names_of(catalogue)[BALL] == "red ball"
    row = associations[(associations["label"] == "red ball") & (associations["split"] == "held_out")].iloc[0]
    n_videos = sum(item.video.split == "valid" and item.video.video_id not in without for item in videos)
    # A ball and a cube on one patch each in each of four frames.
    assert (row["n_positive"], row["n_negative"], row["n_videos"]) == (4 * n_videos, 4 * n_videos, n_videos)


def test_videos_that_the_annotations_do_not_know_are_encoded_and_count_for_no_label(
    videos: list[PlantedVideo], tmp_path: Path
) -> None:
    run = make_run(tmp_path, videos)
    path = tmp_path / "data" / "annotations" / "all.json"
    content = json.loads(path.read_text())
    gone = [video_id for video_id in content if content[video_id]["metadata"]["split"] == "valid"][:3]
    path.write_text(json.dumps({video_id: entry for video_id, entry in content.items() if video_id not in gone}))
    catalogue, associations = tables_of(features(config_of(run)))
    assert catalogue["n_videos_active"][BALL] == N_VIDEOS
    row = associations[(associations["label"] == "red ball") & (associations["split"] == "held_out")].iloc[0]
    assert row["n_videos"] == N_VIDEOS // 2 - 3


def test_one_video_gives_a_catalogue_without_names(
    videos: list[PlantedVideo], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = features(config_of(make_run(tmp_path, videos[:1]), min_videos=1))
    catalogue, associations = tables_of(folder)
    assert names_of(catalogue) == {}
    assert len(associations) == 0
    assert catalogue["n_tokens_active"][BALL] == 4
    assert "latents are not associated with anything" in caplog.text


def test_two_videos_are_too_few_for_a_name(videos: list[PlantedVideo], tmp_path: Path) -> None:
    catalogue, associations = tables_of(features(config_of(make_run(tmp_path, videos[:2]), min_videos=1)))
    assert names_of(catalogue) == {}
    assert not associations["holds"].any()


def test_of_one_official_split_some_videos_are_held_out(videos: list[PlantedVideo], tmp_path: Path) -> None:
    only = [replace(item, video=replace(item.video, split="valid")) for item in videos]
    folder = features(config_of(make_run(tmp_path, only)))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["n_videos_train"] + summary["n_videos_held_out"] == N_VIDEOS
    assert 0 < summary["n_videos_held_out"] < N_VIDEOS / 2
    catalogue, _ = tables_of(folder)
    assert names_of(catalogue)[CUBE] == "blue cube"


def test_nothing_annotated_gives_a_catalogue_without_names(
    videos: list[PlantedVideo], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def edit(_: str, entry: Entry) -> None:
        metadata = entry["metadata"]
        entry.clear()
        entry["metadata"] = {**metadata, "is_camera_moving": 0}

    catalogue, associations = tables_of(features(config_of(make_run(tmp_path, videos, edit))))
    assert names_of(catalogue) == {}
    assert len(associations) == 0
    assert "latents are not associated with anything" in caplog.text


def wider(sae: Sae) -> Sae:
    """The same SAE for a residual stream that is twice as wide."""
    twice = torch.zeros(sae.W_dec.shape[1], sae.W_dec.shape[0])
    return replace(
        sae,
        W_enc=torch.cat([sae.W_enc, twice]),
        W_dec=torch.cat([sae.W_dec, twice.T], dim=1),
        b_dec=torch.zeros(2 * len(sae.b_dec)),
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (planted_sae(fingerprint="another", rotated=True), "was trained on another model"),
        (
            replace(planted_sae(rotated=True), metadata={"hook_name": "resid/7", "k": 1}),
            "trained on site resid/7 and .* does not hold it",
        ),
        (wider(planted_sae(rotated=True)), f"reads 32 dimensions where .* has 16 at {SITE}"),
    ],
    ids=["model", "site", "width"],
)
def test_an_sae_of_something_else_is_refused_before_anything_is_written(
    other: Sae, message: str, videos: list[PlantedVideo], tmp_path: Path
) -> None:
    run = make_run(tmp_path, videos[:2])
    save_sae(run / "sae" / "other", other, torch.full((D_SAE,), 0.1))
    with pytest.raises(UserError, match=message):
        features(config_of(run, sae="other"))
    with pytest.raises(UserError, match=message):
        features(config_of(run, sae="planted", baseline="other"))
    assert not (run / "features").exists()


def test_an_sae_with_a_weight_that_is_no_number_is_refused(videos: list[PlantedVideo], tmp_path: Path) -> None:
    run = make_run(tmp_path, videos[:2])
    sae = planted_sae(rotated=True)
    broken = replace(sae, W_enc=sae.W_enc.clone().fill_(float("nan")))
    save_sae(run / "sae" / "other", broken, torch.full((D_SAE,), 0.1))
    with pytest.raises(UserError, match="other"):
        features(config_of(run, sae="other"))


def test_boxes_on_every_patch_leave_no_negative_and_no_name(videos: list[PlantedVideo], tmp_path: Path) -> None:
    def edit(_: str, entry: Entry) -> None:
        for track in entry["object_tracking"]:
            track["bounding_boxes"] = [[0.0, 0.0, 1.0, 1.0]] * len(track["bounding_boxes"])

    catalogue, associations = tables_of(features(config_of(make_run(tmp_path, videos, edit))))
    objects = associations[associations["kind"] == "object"]
    assert not objects["holds"].any()
    assert "red ball" not in names_of(catalogue).values()


def test_labels_without_a_letter_or_digit_are_no_names(videos: list[PlantedVideo], tmp_path: Path) -> None:
    def edit(_: str, entry: Entry) -> None:
        entry["object_tracking"][0]["label"] = "—"
        for segment in entry["action_localisation"]:
            segment["label"] = "?!" if segment["label"] == "clapping" else segment["label"]

    catalogue, associations = tables_of(features(config_of(make_run(tmp_path, videos, edit))))
    assert names_of(catalogue)[CUBE] == "blue cube"
    for name in {*associations["label"], *catalogue["top_label"].dropna(), *catalogue["runner_up_label"].dropna()}:
        assert all(any(letter.isalnum() for letter in word) for word in name.split()), name
