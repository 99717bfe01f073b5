"""Every verdict about a mechanism follows from its rule, one condition at a time."""

from typing import Any

import pandas as pd
import pytest

from steer.evidence.mechanisms import mechanisms
from steer.mechanism.tables import MECHANISM_TABLES
from tests.steer.effect_rows import row


def said(**rows: list[dict[str, Any]]) -> dict[str, str]:
    """Verdicts by aspect for some rows of some tables."""
    tables = {
        name: pd.DataFrame([row(schema, **each) for each in rows.get(name, [])], columns=schema.names)
        for name, schema in MECHANISM_TABLES.items()
    }
    found = mechanisms(tables)
    return dict(zip(found["aspect"], found["verdict"], strict=True))


def about(name: str, value: float, width: float = 0.01) -> dict[str, float]:
    return {name: value, f"{name}_low": value - width, f"{name}_high": value + width}


def event(**changes: dict[str, float] | int) -> dict[str, Any]:
    values: dict[str, Any] = {
        "target": "3",
        "subject": "lamp",
        "n_videos": 9,
        "n_videos_with_room": 6,
        **about("ablated", -0.6),
        **about("random", 0.0),
        **about("inserted_latent", 0.0),
        **about("inserted_others", 0.0),
        **about("inserted_codes", 0.4),
        **about("inserted_residual", 0.5),
        **about("inserted_quiet_residual", 0.0),
    }
    for name, change in changes.items():
        values |= change if isinstance(change, dict) else {name: change}
    return values


@pytest.mark.parametrize(
    ("changes", "necessity", "sufficiency"),
    [
        ({}, "necessary", "part of a conjunction"),
        ({"a": about("ablated", 0.6)}, "suppressing", "part of a conjunction"),
        ({"a": about("ablated", -0.02)}, "not necessary", "part of a conjunction"),
        ({"a": about("ablated", -0.6, 0.7)}, "undecided", "part of a conjunction"),
        ({"a": about("random", -0.6)}, "undecided", "part of a conjunction"),  # random directions do as much
        ({"a": about("inserted_latent", 0.4)}, "necessary", "sufficient"),
        ({"a": about("inserted_latent", 0.2)}, "necessary", "sufficient in part"),
        ({"a": about("inserted_others", 0.4)}, "necessary", "not sufficient"),  # the others do it without it
        ({"a": about("inserted_codes", 0.0)}, "necessary", "not sufficient"),
        ({"a": about("inserted_residual", 0.0)}, "necessary", "undecided"),  # nothing makes an event there
        ({"a": about("inserted_latent", 0.2, 0.25)}, "necessary", "undecided"),  # [-0.05, 0.45] of 0.5
        ({"a": about("inserted_latent", 0.1, 0.12)}, "necessary", "part of a conjunction"),  # below 0.75 x 0.49
        ({"a": about("inserted_residual", 0.5, 0.49)}, "necessary", "undecided"),  # of 0.01 to 0.99
        ({"a": about("inserted_others", 0.0, 0.4)}, "necessary", "not sufficient"),  # the others may do it without it
        ({"n_videos_with_room": 5}, "necessary", "too few videos"),
        ({"n_videos": 5}, "too few videos", "part of a conjunction"),
    ],
)
def test_events(changes: dict, necessity: str, sufficiency: str) -> None:
    found = said(event_summary=[event(**changes)])
    assert (found["necessity"], found["sufficiency"]) == (necessity, sufficiency)


@pytest.mark.parametrize(
    ("slope", "verdict"),
    [
        ((0.4,), "follows the partner"),
        ((-0.4,), "goes the other way"),
        ((0.04,), "does not follow"),
        ((0.0,), "does not follow"),
        ((0.5, 0.52), "undecided"),
        ((-0.5, 0.52), "does not follow"),  # it may go the other way, but [-1.02, 0.02] is below 0.05
    ],
)
def test_exchanges(slope: tuple[float, ...], verdict: str) -> None:
    assert (
        said(swap_summary=[{"target": "3", "subject": "lamp", "n_videos": 6, **about("slope", *slope)}])["exchange"]
        == verdict
    )


def flow(kept: float, width: float = 0.01, control: float = 0.0, **cuts: float) -> list[dict[str, Any]]:
    shared = {"target": "3", "subject": "lamp", "n_videos": 9, "first_layer": 0, "last_layer": 2}
    sizes = {"free": 0.0, "attention kept": 0.0, "later visual": 0.0, "question": 0.0, "answer": 0.0, "all": -1.0}
    sizes |= {name.replace("_", " "): value for name, value in cuts.items()}
    return [
        {
            **shared,
            "route": name,
            **about("cut", size, width),
            **about("control", control),
            **about("ablation", kept if name == "attention kept" else -1.0, width),
        }
        for name, size in sizes.items()
    ]


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [
        (0.3, "does more than the difference between counts and the mean shift of the text"),
        (0.0, "does no more than the mean shift of the text"),
        (-0.3, "does no more than the mean shift of the text"),
        (0.06, "undecided: does more than the mean shift of the text"),
    ],
)
def test_rivals(shift: float, verdict: str) -> None:
    shared = {"target": "3", "subject": "lamp", "n_videos": 9}
    rows = [
        {**shared, "rival": "count difference", **about("ahead", 0.4)},
        {**shared, "rival": "mean shift", **about("ahead", shift, 0.07 if shift == 0.06 else 0.01)},
    ]
    assert said(rivals=rows)["rivals"] == verdict


@pytest.mark.parametrize(
    ("kept", "width", "verdict"),
    [
        (-0.2, 0.01, "where attention goes"),
        (0.2, 0.01, "where attention goes"),
        (-0.5, 0.01, "where attention goes and what it brings"),
        (-0.8, 0.01, "what attention brings"),
        (1.0, 0.01, "where attention goes and what it brings"),  # what it brings works the other way
        (0.0, 0.3, "undecided"),
        (-0.5, 0.3, "undecided"),
        (-0.8, 0.3, "undecided"),
    ],
)
def test_readings(kept: float, width: float, verdict: str) -> None:
    assert said(flow=flow(kept, width))["reading"] == verdict


@pytest.mark.parametrize(
    ("cuts", "verdict"),
    [
        ({"question": -0.6}, "by the question's tokens"),
        ({"answer": -0.9, "question": -0.6}, "by the last token"),
        ({"later_visual": -0.52}, "by later visual tokens"),
        ({"later_visual": -0.5}, "undecided"),  # [-0.51, -0.49] is half of it or not
        ({"question": -0.4, "answer": -0.4}, "by several"),
        ({"question": -0.6, "width": 0.2}, "undecided"),
        ({"question": -0.6, "control": -1.0}, "undecided"),  # frames without an event cost as much
        ({"question": -0.6, "control": -0.6}, "undecided"),
    ],
)
def test_routes(cuts: dict[str, float], verdict: str) -> None:
    assert said(flow=flow(-1.0, **cuts))["route"] == verdict


def test_nothing_is_said_of_routes_where_no_cut_costs_anything() -> None:
    assert "route" not in said(flow=flow(-1.0, all=-0.04))


@pytest.mark.parametrize(
    ("gain", "state", "same", "verdict"),
    [
        (0.2, (0.4,), (0.0,), "read by the answer"),
        (0.2, (0.4,), (0.4,), "undecided: read by the answer"),  # so is that of a video with as many events
        (0.2, (0.4,), (float("nan"),), "undecided: read by the answer"),  # which nobody knows
        (0.2, (0.4, 0.5), (0.0,), "undecided: read by the answer"),
        (0.2, (0.0,), (0.0,), "follows the count, not read in one frame"),
        (0.0, (0.0,), (0.0,), "none found"),
    ],
)
def test_counters(gain: float, state: tuple[float, ...], same: tuple[float, ...], verdict: str) -> None:
    values = {**about("gain", gain), **about("state_more", *state), **about("state_same", *same)}
    assert said(counters=[{"subject": "lamp", "latents": [3], "n_more": 6, **values}])["counter"] == verdict


def test_sets_that_are_tested_are_the_smallest_that_reach_their_share_on_train() -> None:
    shared = {"subject": "lamp", "n_videos": 9}
    rows = [
        {
            **shared,
            "aim": "destroy",
            "size": size,
            "latents": [1] * size,
            "train_share": 0.5 * size,
            **about("share", 0.7),
        }
        for size in (1, 2, 3)
    ]
    assert said(sets=rows)["set"] == "more than half destroyed by 2 latents"
    assert (
        said(sets=[{**rows[0], "aim": "restore", "train_share": 0.9}])["set"] == "more than half restored by 1 latent"
    )


@pytest.mark.parametrize(
    ("share", "said_of_it"),
    [((0.4,), "not "), ((0.12, 0.2), "not "), ((0.5,), "undecided: "), ((0.7, 0.3), "undecided: ")],
)
def test_what_a_set_does_is_decided_on_held_out_videos(share: tuple[float, ...], said_of_it: str) -> None:
    row = {"subject": "lamp", "n_videos": 9, "aim": "destroy", "size": 2, "latents": [1, 2], "train_share": 0.85}
    assert said(sets=[{**row, **about("share", *share)}])["set"] == f"{said_of_it}more than half destroyed by 2 latents"


def test_doses_are_said_once_per_target() -> None:
    rows = [
        {"target": "3", "subject": "lamp", "dose": dose, "shape": "rising", "n_videos": 6} for dose in (0.0, 1.0, 2.0)
    ]
    assert said(doses=rows) == {"dose": "rising"}


def test_without_tables_nothing_is_said() -> None:
    assert said() == {}
