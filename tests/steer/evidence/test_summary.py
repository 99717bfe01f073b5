"""The summary and the baselines, worked out by hand on three videos."""

import math

import numpy as np
import pandas as pd
import pytest

from ask.baselines import baselines, kinds_of
from ask.questions import CHANCE
from collect.artefact.folder import read_table, write_table
from steer.edits.operations import Operation
from steer.evidence.summary import summarise
from steer.tables import CONTROLS, EFFECTS, SUMMARY
from steer.targets import Target
from tests.steer.toy import SUBJECT, counting_item, noncounting_item

ITEMS = (
    counting_item("a", 0),
    counting_item("a", 1),
    counting_item("b", 0),
    counting_item("c", 0),
    noncounting_item("a"),
    noncounting_item("b"),
    counting_item("t", 0, held_out=False),
)
TARGET = Target(id="5", latents=(5,), selected_by="sweep", subject=SUBJECT)
ABLATE, DOUBLE = Operation.parse("ablate"), Operation.parse("scale:2")


def effect(item: str, delta: float, counting: bool = True, operation: str = "ablate") -> dict:
    return {
        "target": "5",
        "operation": operation,
        "item": item,
        "video_id": item.split("/")[0],
        "kind": "object counting" if counting else "colour",
        "counting": counting,
        "n_tokens_edited": 1,
        "mean_norm": 1.0,
        "delta_margin": delta,
        "delta_accuracy": -1 / 3,
        "right_to_wrong": 1 / 3,
        "wrong_to_right": 0.0,
        "delta_expected_count": delta if counting else float("nan"),
        "delta_option_mass": 0.0,
        "kl": 0.1,
    }


def control(family: str, index: int, delta: float) -> dict:
    return {
        "target": "5",
        "magnitude": "scale 1",
        "family": family,
        "index": index,
        "source": [],
        "n_items": 4,
        "n_videos": 3,
        "delta_margin": delta,
        "delta_accuracy": 0.0,
        "delta_expected_count": 0.0,
    }


EFFECT_ROWS = pd.DataFrame([effect("a/0", -1.0), effect("a/1", -3.0), effect("b/0", -4.0), effect("a/9", -0.5, False)])
CONTROL_ROWS = pd.DataFrame([control("random", 0, 0.5), control("random", 1, -1.5), control("decoder", 0, -2.5)])
SCREEN = pd.DataFrame({"latent": [4, 5], "firing_rate": [0.0, 0.25], "attribution_held_out": [np.nan, -1.75]})


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return summarise(EFFECT_ROWS, CONTROL_ROWS, SCREEN, ITEMS, [TARGET], [ABLATE, DOUBLE], seed=0).summary


def test_effects_are_averaged_by_video_with_untouched_ones_as_zeros(table: pd.DataFrame) -> None:
    row = table.iloc[0]
    # a: (-1 - 3) / 2 = -2; b: -4; c, where the latent is silent: 0
    assert row["delta_margin"] == pytest.approx(-2.0)
    assert row["delta_margin_active"] == pytest.approx(-3.0)
    assert row["delta_margin_low"] <= row["delta_margin"] <= row["delta_margin_high"]
    assert (row["n_items"], row["n_items_active"], row["n_videos"], row["n_videos_active"]) == (4, 3, 3, 2)
    assert row["delta_accuracy"] == pytest.approx(-2 / 9)
    assert row["p_value"] == 2 / 4  # signs of -2 and -4: only -- and ++ reach 6


def test_noncounting_questions_and_specificity(table: pd.DataFrame) -> None:
    row = table.iloc[0]
    # a: -0.5; b: untouched
    assert row["delta_margin_noncounting"] == pytest.approx(-0.25)
    assert row["specificity"] == pytest.approx(2.0 - 0.25)


def test_the_controls_of_all_families_are_counted(table: pd.DataFrame) -> None:
    row = table.iloc[0]
    assert (row["control_max_random"], row["control_max_decoder"], row["control_max"]) == (1.5, 2.5, 2.5)
    assert row["control_max_covariance"] is None or math.isnan(row["control_max_covariance"])
    assert row["control_p_value"] == row["control_q_value"] == (1 + 1) / (3 + 1)
    assert not row["confirmed"]


def test_an_operation_that_touched_nothing_has_no_effect(table: pd.DataFrame) -> None:
    row = table.iloc[1]
    assert row["operation"] == "scale:2"
    assert (row["delta_margin"], row["p_value"], row["n_videos_active"]) == (0.0, 1.0, 0)
    assert row["n_controls"] == 3  # equal norms, so the ablation's controls


def test_without_controls_nothing_is_claimed() -> None:
    none = pd.DataFrame(columns=CONTROLS.names)
    row = summarise(EFFECT_ROWS, none, SCREEN, ITEMS, [TARGET], [ABLATE], seed=0).summary.iloc[0]
    assert row["confirmed"] is None
    assert row["n_controls"] == 0
    assert math.isnan(row["control_p_value"])
    assert math.isnan(row["control_q_value"])


def test_tables_fit_their_schemas(table: pd.DataFrame, tmp_path: object) -> None:
    for name, frame, schema in (
        ("effects", EFFECT_ROWS, EFFECTS),
        ("controls", CONTROL_ROWS, CONTROLS),
        ("summary", table, SUMMARY),
    ):
        path = tmp_path / f"{name}.parquet"  # type: ignore[operator]
        write_table(path, frame, schema)
        assert list(read_table(path).columns) == schema.names
        assert all(field.metadata[b"doc"] for field in schema)


def test_kinds_begin_with_the_totals() -> None:
    assert [(kind, counting, len(items)) for kind, counting, items in kinds_of(ITEMS)] == [
        ("all counting", True, 5),
        ("all non-counting", False, 2),
        ("object counting", True, 5),
        ("colour", False, 2),
    ]


def test_baselines_stand_beside_the_models_scores() -> None:
    answered = pd.DataFrame(
        {"item": [item.item_id for item in ITEMS], "accuracy": [1.0, 0.5, 0.5, 0.0, 1.0, 1.0, 1.0], "margin": 1.0}
    )
    found = baselines(ITEMS, answered).set_index(["split", "kind"])
    row = found.loc[("held_out", "all counting")]
    assert row["n_items"] == 4
    assert row["accuracy"] == pytest.approx(0.5)
    assert row["chance"] == CHANCE
    # The train item's answer is "3", as every held-out item's; non-counting questions were never seen in training.
    assert row["question_only"] == 1.0
    assert row["answer_frequency"] == 1.0
    assert found.loc[("held_out", "colour"), "question_only"] == pytest.approx(CHANCE)
