"""Single events: removing one gives the answer of a video without it, inserting one that of a video with one more."""

import numpy as np
import pytest
import torch

from steer.mechanism.events import copied, event_rows, event_summary, moments
from steer.mechanism.occurrences import EventLabel
from tests.steer.mechanism.toy_bench import EVENT, bench_of, expected_count, segment, target, video_of

LABEL = EventLabel(kind="action", label=EVENT, agreement=1.0)
EVIDENCE = {"a": (0.0, 1.0, 0.0, 2.0), "b": (0.0, 2.0, 0.0, 0.0)}
VIDEOS = {
    "a": video_of("a", [segment(1), segment(3, number=1)]),
    "b": video_of("b", [segment(1)]),
}
BENCH = bench_of(EVIDENCE, {"a": 2, "b": 1}, VIDEOS, noise={"a": torch.ones(4, 4), "b": torch.ones(4, 4)})


def frames(*marked: int) -> np.ndarray:
    return np.isin(np.arange(6), marked)


def test_moments_take_the_strongest_frame_and_the_farthest_quiet_ones() -> None:
    total = np.array([0.0, 1.0, 3.0, 0.0, 0.0, 0.0])
    (found,) = moments([frames(1, 2)], total, frames(2))
    assert (found.source, found.quiet, found.other_quiet) == (2, 5, 4)
    assert moments([frames(4)], total, frames(2)) == []  # the latent is silent there
    assert moments([frames(0, 1, 2, 3, 4, 5)], total, frames(2)) == []  # no quiet frame


def test_a_copied_frame_has_the_values_of_its_source() -> None:
    values = torch.arange(12.0).reshape(6, 2)  # three frames of two patches
    changed = values + copied(values, 2, 0, 2)
    assert torch.equal(changed[:2], values[4:])
    assert torch.equal(changed[2:], values[2:])


def test_necessity_and_sufficiency_are_those_of_videos_with_one_event_less_and_more() -> None:
    rows = event_rows(BENCH, target(0), LABEL)
    found = {(row["video_id"], row["event"], row["edit"]): row for row in rows}
    assert {key[:2] for key in found} == {("a", 0), ("a", 1), ("b", 0)}
    before = expected_count(EVIDENCE["a"])
    less = expected_count((0.0, 0.0, 0.0, 2.0))
    assert found["a", 0, "ablate"]["delta_expected_count"] == pytest.approx(less - before, abs=1e-5)
    # Both quiet frames of `a` are one step from an event, so the earlier one takes the event's evidence of 1.
    more = expected_count((1.0, 1.0, 0.0, 2.0))
    for edit in ("insert latent", "insert codes", "insert residual"):
        assert found["a", 0, edit]["quiet_frame"] == 0
        assert found["a", 0, edit]["delta_expected_count"] == pytest.approx(more - before, abs=1e-5)
    assert found["a", 0, "insert others"]["delta_expected_count"] == pytest.approx(0.0, abs=1e-6)
    assert found["a", 0, "insert quiet residual"]["delta_expected_count"] == pytest.approx(0.0, abs=1e-6)
    assert found["a", 0, "random"]["mean_norm"] == pytest.approx(found["a", 0, "ablate"]["mean_norm"])


def test_the_summary_averages_events_within_videos_first() -> None:
    rows = event_rows(BENCH, target(0), LABEL)
    (summary,) = event_summary(rows, target(0), seed=0)
    own = {(row["video_id"], row["event"]): row["delta_expected_count"] for row in rows if row["edit"] == "ablate"}
    assert summary["ablated"] == pytest.approx(((own["a", 0] + own["a", 1]) / 2 + own["b", 0]) / 2)
    assert (summary["n_events"], summary["n_videos"], summary["n_videos_with_room"]) == (3, 2, 2)
    assert summary["ablated_high"] < 0 < summary["inserted_latent_low"]


def test_insertions_count_only_where_the_count_can_rise() -> None:
    bench = bench_of(EVIDENCE, {"a": 3, "b": 1}, VIDEOS)
    rows = event_rows(bench, target(0), LABEL)
    assert {row["video_id"]: row["has_room"] for row in rows} == {"a": False, "b": True}
    (summary,) = event_summary(rows, target(0), seed=0)
    (only,) = [row for row in rows if (row["video_id"], row["edit"]) == ("b", "insert latent")]
    assert summary["inserted_latent"] == only["delta_expected_count"]
    assert summary["n_videos_with_room"] == 1


def test_without_annotations_strong_firing_is_an_event() -> None:
    rows = event_rows(BENCH, target(0), None)
    # In `a` the step with evidence 1 reaches half of the 95 % quantile of 2, so both are events.
    assert {(row["video_id"], row["first_frame"]) for row in rows} == {("a", 1), ("a", 3), ("b", 1)}
    assert {row["label"] for row in rows} == {None}
    assert event_rows(BENCH, target(7), None) == []
