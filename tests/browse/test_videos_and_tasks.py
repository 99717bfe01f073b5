"""Videos, tasks, and runs that are not finished."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ask.tables import ITEMS
from browse.gathering.grouped import Grouped, records
from browse.gathering.library import Library
from browse.gathering.opened import OpenedRun, OpenedSae
from browse.gathering.videos import predicted
from browse.shards import encode
from collect.artefact.folder import write_table
from features.moments import MOMENTS, describe_moments, find_moments
from tests.small_run import D_SAE, SAE_NAME
from tests.steer.effect_rows import row
from tests.steer.finished_run import BALL, BALL_LABEL


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
