"""Oddities of annotation files, each alone: read rightly and said, or refused with file, place and remedy.

The file under test has two videos of 300 frames at 30 frames a second, 640 x 480, with tracks whose boxes and times are
in the benchmark's units, an action, a sound and questions. No video file is needed.
"""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collect.data.perception_test import load_dataset
from collect.errors import UserError
from tests.collect.annotation_oddities import (
    PIXELS,
    REFUSED,
    SAID,
    SAME,
    annotations,
    as_size,
    changed,
    loaded,
    segment,
    write,
)


@pytest.mark.parametrize("name", SAME)
def test_what_can_be_read_rightly_is_and_other_units_are_said(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change, said = SAME[name]
    caplog.set_level(logging.INFO)
    truth = loaded(tmp_path / "truth", annotations())
    caplog.clear()
    assert loaded(tmp_path / "odd", changed(change)) == truth
    messages = [record.getMessage() for record in caplog.records]
    assert bool(messages) == (said is not None)
    assert said is None or any(said in message and "all_train.json" in message for message in messages)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_with_file_and_reason(name: str, tmp_path: Path) -> None:
    change, reason = REFUSED[name]
    path = write(tmp_path, changed(change))
    with pytest.raises(UserError, match=reason) as info:
        load_dataset(tmp_path)
    assert str(info.value).startswith(str(path))


@pytest.mark.parametrize("name", SAID)
def test_what_is_odd_is_read_and_said(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    change, said = SAID[name]
    write(tmp_path, changed(change))
    load_dataset(tmp_path)
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert re.search(said, message)
    assert "video 'video_1'" in message


def test_a_fault_in_one_of_hundreds_of_segments_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = annotations()
    data["video_1"]["action_localisation"] = [{**segment("Lifting", 1.0, 2.0), "id": i} for i in range(200)]
    data["video_1"]["action_localisation"][17]["timestamps"] = [2_000_000, 1_000_000]
    write(tmp_path, data)
    assert [s.id for s in load_dataset(tmp_path).video("video_1").actions] == [i for i in range(200) if i != 17]
    assert "`action_localisation`[17]: it ends before it starts: it is left out" in caplog.text


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    per_second=st.sampled_from([1e6, 1e3, 1.0]),
    in_pixels=st.booleans(),
    sizes=st.booleans(),
    with_frames=st.booleans(),
)
def test_any_units_are_read_rightly_and_said_or_refused(
    seed: int,
    per_second: float,
    in_pixels: bool,
    sizes: bool,
    with_frames: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Random tracks in random units: what is read is the truth, or nothing; other units are logged."""
    caplog.set_level(logging.INFO)
    caplog.clear()
    rng = np.random.default_rng(seed)
    data, truth = annotations(), {}
    for name, video in data.items():
        for t in video["object_tracking"]:
            low = rng.random((9, 2)) * 0.8
            true = np.concatenate([low, low + 0.05 + rng.random((9, 2)) * (0.95 - low)], axis=1)
            truth[name, t["id"]] = true
            on_file = as_size(true) if sizes else true
            t["bounding_boxes"] = (on_file * (PIXELS if in_pixels else 1)).tolist()
            t["timestamps"] = [i * per_second for i in range(9)]
            if not with_frames:
                del t["frame_ids"]
    write(tmp_path, data)
    try:
        videos = load_dataset(tmp_path).videos
    except UserError:
        return
    for video in videos:
        for t in video.tracks:
            np.testing.assert_allclose(t.boxes, truth[video.video_id, t.id], atol=1e-9)
            np.testing.assert_allclose(t.times_s, np.arange(9))
    said = " ".join(record.getMessage() for record in caplog.records)
    assert ("pixels" in said) == in_pixels
    assert ("width and height" in said) == sizes
    assert ("times are read as" in said) == (per_second != 1e6)
