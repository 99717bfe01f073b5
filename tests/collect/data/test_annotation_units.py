"""Units: whatever a file is in, it is read rightly and said so, or there is a doubt; never silently as something else.

The truth is boxes (x1, y1, x2, y2) in fractions and times in seconds; a file writes them in other units.
"""

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import collect.data.annotation_units as units_module
from collect.data.annotation_units import (
    PER_SECOND,
    UNDECIDED,
    BoxFormat,
    BoxUnit,
    BoxUnits,
    Doubt,
    TimeUnit,
    TimeUnits,
    as_corners,
    in_fractions,
    time_units,
)

UNKNOWN = BoxUnits()


def box_units(boxes: np.ndarray, sizes: np.ndarray, said: BoxUnits, per_track: int = 1) -> BoxUnits | Doubt:
    """Boxes of tracks of so many boxes each."""
    return units_module.box_units(boxes, sizes, np.arange(len(boxes)) // per_track, said)


@st.composite
def files_of_boxes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """True boxes, each at least three pixels wide and high, and the sizes of their frames."""
    width, height = draw(st.integers(64, 4000)), draw(st.integers(64, 4000))
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    least = 3 / np.array([width, height])
    low = rng.random((n, 2)) * (1 - least)
    high = low + least + rng.random((n, 2)) * (1 - low - least) * draw(st.sampled_from([0.1, 0.5, 1.0]))
    return np.concatenate([low, high], axis=1), np.tile([float(width), float(height)], (n, 1))


def written(boxes: np.ndarray, sizes: np.ndarray, unit: BoxUnit, form: BoxFormat) -> np.ndarray:
    as_form = boxes if form == "xyxy" else np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return as_form if unit == "fraction" else as_form * np.concatenate([sizes, sizes], axis=1)


def read(boxes: np.ndarray, sizes: np.ndarray, units: BoxUnits) -> np.ndarray:
    assert units.unit is not None
    assert units.format is not None
    return as_corners(in_fractions(boxes, sizes, units.unit), units.format)


@given(truth=files_of_boxes())
def test_the_benchmarks_own_boxes_are_always_read_as_they_are(truth: tuple[np.ndarray, np.ndarray]) -> None:
    boxes, sizes = truth
    units = box_units(boxes, sizes, UNKNOWN)
    assert isinstance(units, BoxUnits)
    assert (units.unit, units.format) == ("fraction", "xyxy")


@given(truth=files_of_boxes(), unit=st.sampled_from(["fraction", "pixel"]), form=st.sampled_from(["xyxy", "xywh"]))
def test_other_boxes_are_read_rightly_or_there_is_a_doubt_or_both_readings_are_said(
    truth: tuple[np.ndarray, np.ndarray], unit: BoxUnit, form: BoxFormat
) -> None:
    boxes, sizes = truth
    on_file = written(boxes, sizes, unit, form)
    units = box_units(on_file, sizes, UNKNOWN)
    if isinstance(units, Doubt):
        return
    if units.undecided:  # nothing in the file speaks against either, and that is said
        assert units.format == "xyxy"
        assert units.unit == unit
        return
    np.testing.assert_allclose(read(on_file, sizes, units), boxes, atol=1e-9)


@given(truth=files_of_boxes(), unit=st.sampled_from(["fraction", "pixel"]), form=st.sampled_from(["xyxy", "xywh"]))
def test_units_that_the_file_states_are_taken(
    truth: tuple[np.ndarray, np.ndarray], unit: BoxUnit, form: BoxFormat
) -> None:
    boxes, sizes = truth
    on_file = written(boxes, sizes, unit, form)
    units = box_units(on_file, sizes, BoxUnits(unit=unit, format=form))
    assert isinstance(units, BoxUnits)
    np.testing.assert_allclose(read(on_file, sizes, units), boxes, atol=1e-9)


@pytest.mark.parametrize("scale", [100.0, 1000.0])
@given(truth=files_of_boxes())
def test_percent_and_thousandths_are_never_read_as_pixels_of_a_larger_frame(
    scale: float, truth: tuple[np.ndarray, np.ndarray]
) -> None:
    boxes, sizes = truth
    assume(sizes.max() > scale)
    assert isinstance(box_units(boxes * scale, sizes, UNKNOWN), Doubt)


@pytest.mark.parametrize(
    ("boxes", "said", "reason"),
    [
        (
            [[0.1, 0.1, 0.4, 0.4], [30.0, 40.0, 500.0, 300.0]],
            UNKNOWN,
            "1 of 2 boxes are fractions of the frame, and others",
        ),
        ([[300.0, 10.0, 900.0, 500.0]], UNKNOWN, "would lie outside of a frame such as 640 x 480"),
        ([[200.0, 10.0, 300.0, 200.0]], UNKNOWN, "all of them would lie in one corner"),
        ([[0.5, 0.5, 0.2, 0.2]], UNKNOWN, "or else have their second corner before the first"),
        ([[0.7, 0.7, 0.5, 0.6], [0.8, 0.1, 0.9, 0.3]], UNKNOWN, "second corner of 1 of 2 boxes lies before the first"),
        ([[0.5, 0.5, 0.2, 0.2]], BoxUnits(format="xyxy"), "second corner of 1 of 1 boxes lies before the first"),
        ([[30.0, 40.0, 500.0, 300.0]], BoxUnits(unit="fraction"), "1 of 1 boxes lie far outside"),
        ([[0.1, 0.2, 0.3, 0.4]], BoxUnits(unit="pixel"), "none reaches beyond 1"),
        ([[50.0, 40.0, 90.0, 70.0]], UNKNOWN, "may be pixels or percent"),
    ],
)
def test_doubts(boxes: list[list[float]], said: BoxUnits, reason: str) -> None:
    doubt = box_units(np.array(boxes), np.tile([640.0, 480.0], (len(boxes), 1)), said)
    assert isinstance(doubt, Doubt)
    assert reason in doubt.reason


def test_pixels_without_a_resolution_are_a_doubt() -> None:
    assert isinstance(box_units(np.array([[30.0, 40.0, 500.0, 300.0]]), np.zeros((1, 2)), UNKNOWN), Doubt)


def test_a_few_of_many_boxes_may_be_at_odds_with_the_others() -> None:
    rng = np.random.default_rng(0)
    low = rng.random((300, 2)) * 0.8
    boxes = np.concatenate([low, low + 0.1 + 0.1 * rng.random((300, 2))], axis=1)
    boxes[7] = boxes[7, [2, 3, 0, 1]]
    units = box_units(boxes, np.full((300, 2), 500.0), UNKNOWN)
    assert units == BoxUnits(unit="fraction", format="xyxy")


def test_many_boxes_that_fit_both_formats_are_counted() -> None:
    boxes = np.tile([0.1, 0.1, 0.3, 0.3], (UNDECIDED, 1))
    assert box_units(boxes, np.full((UNDECIDED, 2), 500.0), UNKNOWN) == BoxUnits(
        unit="fraction", format="xyxy", undecided=UNDECIDED
    )


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 30), form=st.sampled_from(["xyxy", "xywh"]))
def test_where_both_formats_fit_the_steadier_sizes_decide_or_there_is_a_doubt(
    seed: int, n: int, form: BoxFormat
) -> None:
    rng = np.random.default_rng(seed)
    low = 0.3 * rng.random((n, 2))  # an object of one size that moves in the upper left of the frame
    corners = np.concatenate([low, low + 0.15], axis=1)
    sizes = np.full((n, 2), 500.0)
    units = box_units(written(corners, sizes, "fraction", form), sizes, UNKNOWN, per_track=n)
    if form == "xyxy":
        assert units == BoxUnits(unit="fraction", format="xyxy", undecided=n)
    else:
        assert isinstance(units, Doubt) or units.format == "xywh"


@st.composite
def files_of_times(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True times in seconds, lengths and numbers of the videos that each lies in."""
    n_videos = draw(st.integers(1, 6))
    durations = np.array(draw(st.lists(st.floats(1.0, 120.0), min_size=n_videos, max_size=n_videos)))
    videos = np.repeat(np.arange(n_videos), 3)
    shares = draw(st.lists(st.floats(0.05, 1.0), min_size=len(videos), max_size=len(videos)))
    return np.round(np.array(shares) * durations[videos], 3), durations[videos], videos


TIME_UNITS = st.sampled_from(["us", "ms", "s"])


@given(truth=files_of_times(), unit=TIME_UNITS)
def test_times_beside_frame_ids_are_read_rightly(
    truth: tuple[np.ndarray, np.ndarray, np.ndarray], unit: TimeUnit
) -> None:
    times, durations, videos = truth
    frames = np.round(times * 25) / 25
    assume((frames > 0.2).any())
    assert time_units(times * PER_SECOND[unit], frames, durations, videos, None) == TimeUnits(unit=unit)


@given(truth=files_of_times(), unit=TIME_UNITS)
def test_times_without_frame_ids_are_read_rightly_or_there_is_a_doubt(
    truth: tuple[np.ndarray, np.ndarray, np.ndarray], unit: TimeUnit
) -> None:
    times, durations, videos = truth
    assume(times.max() >= 0.5)
    found = time_units(times * PER_SECOND[unit], np.full(len(times), np.nan), durations, videos, None)
    assert isinstance(found, Doubt) or found == TimeUnits(unit=unit)


@given(
    ends=st.tuples(st.floats(1.0, 45.0), st.floats(1.0, 45.0)),
    units=st.permutations(["us", "ms", "s"]),
    with_frames=st.booleans(),
)
@example(ends=(1.0, 1.0), units=["us", "ms", "s"], with_frames=True)
def test_two_units_in_one_file_are_a_doubt(ends: tuple[float, float], units: list[TimeUnit], with_frames: bool) -> None:
    times = np.array([ends[0] / 2, ends[0], ends[1] / 2, ends[1]])
    videos, scale = np.array([0, 0, 1, 1]), np.repeat([PER_SECOND[units[0]], PER_SECOND[units[1]]], 2)
    frames = np.round(times * 25) / 25 if with_frames else np.full(4, np.nan)
    assert isinstance(time_units(times * scale, frames, np.repeat(ends, 2), videos, None), Doubt)


def test_times_that_contradict_their_frame_ids_in_every_unit() -> None:
    doubt = time_units(np.array([0.0, 7e7, 9e7]), np.array([0.0, 1.0, 2.0]), np.full(3, 5.0), np.zeros(3, int), None)
    assert isinstance(doubt, Doubt)
    assert doubt.contradiction


def test_times_without_anything_beside_them_are_microseconds_and_unchecked() -> None:
    nothing = np.full(2, np.nan)
    assert time_units(np.array([0.0, 2e6]), nothing, np.zeros(2), np.zeros(2, int), None) == TimeUnits(
        unit="us", unchecked=True
    )


def test_a_stated_unit_is_taken_and_checked() -> None:
    frames, durations, videos = np.array([0.0, 2.0]), np.full(2, 5.0), np.zeros(2, int)
    assert time_units(np.array([0.0, 2000.0]), frames, durations, videos, "ms") == TimeUnits(unit="ms")
    assert isinstance(time_units(np.array([0.0, 2000.0]), frames, durations, videos, "s"), Doubt)
