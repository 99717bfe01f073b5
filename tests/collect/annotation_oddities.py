"""Annotations with every oddity that people's files have, as changes of a plain data set of two videos."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from collect.data.annotation import Video
from collect.data.perception_test import load_dataset

Record = dict[str, Any]
METADATA: Record = {"split": "train", "frame_rate": 30.0, "num_frames": 300, "resolution": [480, 640]}


def track(number: int, label: str, x: float) -> Record:
    """An object of 0.2 x 0.3 that moves to the right and down, annotated every second for nine seconds."""
    corners = [(x + 0.05 * i, 0.1 + 0.06 * i) for i in range(9)]
    return {
        "id": number,
        "label": label,
        "is_occluder": 0,
        "is_masked": [0] * 8 + [1],
        "bounding_boxes": [[round(v, 4) for v in (a, b, a + 0.2, b + 0.3)] for a, b in corners],
        "frame_ids": [30 * i for i in range(9)],
        "timestamps": [1_000_000 * i for i in range(9)],
    }


def segment(label: str, start_s: float, end_s: float, **more: object) -> Record:
    return {
        "id": 0,
        "label": label,
        "label_id": 5,
        "parent_objects": [1],
        "timestamps": [round(1e6 * start_s), round(1e6 * end_s)],
        "frame_ids": [round(30 * start_s), round(30 * end_s)],
        **more,
    }


def annotations() -> Record:
    return {
        name: {
            "metadata": {**METADATA, "video_id": name},
            "object_tracking": [track(0, "red cup", 0.1), track(1, "ball", 0.3)],
            "action_localisation": [segment("Lifting", 1.0, 3.5)],
            "sound_localisation": [segment("Hit", 2.0, 2.5, is_visible=1)],
            "mc_question": [
                {
                    "id": 0,
                    "question": "How many cups?",
                    "options": ["1", "2", "3"],
                    "answer_id": 1,
                    "area": "memory",
                    "reasoning": "descriptive",
                    "tag": ["object counting"],
                }
            ],
        }
        for name in ("video_1", "video_2")
    }


Change = Callable[[Record], None]


def each(part: str, change: Change) -> Change:
    """The change made to every entry of a part."""

    def apply(data: Record) -> None:
        for video in data.values():
            for entry in video[part]:
                change(entry)

    return apply


def tracks(change: Change) -> Change:
    return each("object_tracking", change)


def actions(change: Change) -> Change:
    return each("action_localisation", change)


def questions(change: Change) -> Change:
    return each("mc_question", change)


def metadata(**values: object) -> Change:
    def apply(data: Record) -> None:
        for video in data.values():
            video["metadata"].update(values)

    return apply


def put(**values: object) -> Change:
    return lambda entry: entry.update(copy.deepcopy(values))


def drop(*names: str) -> Change:
    def apply(entry: Record) -> None:
        for name in names:
            del entry[name]

    return apply


def also(*changes: Change) -> Change:
    def apply(data: Record) -> None:
        for change in changes:
            change(data)

    return apply


def no_metadata(*names: str) -> Change:
    def apply(data: Record) -> None:
        for video in data.values():
            drop(*names)(video["metadata"])

    return apply


def boxes(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return tracks(lambda t: t.update(bounding_boxes=change(np.array(t["bounding_boxes"])).tolist()))


def times(factor: float) -> Callable[[Record], None]:
    return lambda entry: entry.update(timestamps=[value * factor for value in entry["timestamps"]])


PIXELS = np.array([640.0, 480.0, 640.0, 480.0])


def as_size(b: np.ndarray) -> np.ndarray:
    return np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1)


def reverse(t: Record) -> None:
    for name in ("bounding_boxes", "frame_ids", "timestamps", "is_masked"):
        t[name] = t[name][::-1]


SAME: dict[str, tuple[Change, str | None]] = {
    "unchanged": (lambda _: None, None),
    "frames in reverse": (tracks(reverse), None),
    "boxes in pixels": (boxes(lambda b: b * PIXELS), "boxes are read as x1, y1, x2, y2 of pixels"),
    "boxes as x, y, width, height": (boxes(as_size), "boxes are read as x, y, width and height"),
    "both": (boxes(lambda b: as_size(b * PIXELS)), "boxes are read as x, y, width and height of pixels"),
    "boxes in pixels, and said": (
        also(boxes(lambda b: b * PIXELS), metadata(box_unit="pixel")),
        None,
    ),
    "times in seconds": (tracks(times(1e-6)), "times are read as seconds"),
    "times in milliseconds": (tracks(times(1e-3)), "times are read as milliseconds"),
    "seconds without frame ids": (
        tracks(also(times(1e-6), drop("frame_ids"))),
        "times are read as seconds",
    ),
    "actions in milliseconds": (actions(times(1e-3)), "times are read as milliseconds"),
    "actions in seconds without frame ids": (
        actions(also(times(1e-6), drop("frame_ids"))),
        "times are read as seconds",
    ),
    "tracks without times": (tracks(drop("timestamps")), None),
    "tracks without frame ids": (tracks(drop("frame_ids")), None),
    "actions without times": (actions(drop("timestamps")), None),
    "ids as text": (tracks(lambda t: t.update(id=str(t["id"]))), None),
    "whole numbers as 30.0": (tracks(lambda t: t.update(frame_ids=[float(f) for f in t["frame_ids"]])), None),
    "num_frames as 300.0": (metadata(num_frames=300.0), None),
    "one parent as a number": (actions(put(parent_objects=1)), None),
    "cup game left open": (metadata(is_cup_game=-1, is_camera_moving=None), None),
    "split by another name": (metadata(split="Training"), "the split 'Training' is read as train"),
    "answer as a letter": (questions(put(answer_id="B")), None),
    "answer as its text": (questions(also(drop("answer_id"), put(answer="2"))), None),
    "options as numbers": (questions(put(options=[1, 2, 3])), None),
    "options under letters": (questions(put(options={"A": "1", "B": "2", "C": "3"})), None),
    "one tag as text": (questions(put(tag="object counting")), None),
    "ids left out": (
        also(each("object_tracking", drop("id")), each("mc_question", drop("id"))),
        None,
    ),
    "ids with the suffix of the file": (
        lambda data: data.update({f"{name}.mp4": data.pop(name) for name in list(data)}),
        None,
    ),
    "box a little out of the frame": (
        lambda data: data["video_1"]["object_tracking"].append(
            {"id": 7, "label": "hand", "bounding_boxes": [[0.9, 0.2, 1.1, 0.4]], "frame_ids": [30]}
        ),
        "boxes reach out of the frame",
    ),
}
"""Read as the unchanged file is, with this in the log."""
REFUSED: dict[str, tuple[Change, str]] = {
    "same time for all frames": (
        tracks(lambda t: t.update(timestamps=[0] * 9)),
        r"`object_tracking`: its times and its frame ids contradict each other \(28 of 36.*see video 'video_1'",
    ),
    "frame ids of another frame rate": (metadata(frame_rate=10.0), "contradict each other"),
    "box with a null": (
        tracks(lambda t: t["bounding_boxes"].__setitem__(2, None)),
        r"`object_tracking`\[0\] has the field `bounding_boxes\[2\]` = None",
    ),
    "box of NaN": (tracks(lambda t: t["bounding_boxes"].__setitem__(0, [float("nan")] * 4)), r"`bounding_boxes\[0\]`"),
    "box of three numbers": (tracks(lambda t: t["bounding_boxes"].__setitem__(0, [0.1, 0.1, 0.2])), "4 numbers"),
    "negative frame ids": (tracks(lambda t: t.update(frame_ids=[-30, *t["frame_ids"][1:]])), "numbers from 0 on"),
    "one id for two tracks": (tracks(put(id=0)), r"its id is that of another entry of `object_tracking` \(0\)"),
    "is_masked of another length": (tracks(put(is_masked=[0, 1])), "a list of 9 of them"),
    "second corner before the first": (boxes(lambda b: b[:, [2, 3, 0, 1]]), "the units of its boxes cannot be told"),
    "one box turned around": (
        lambda data: data["video_1"]["object_tracking"][1]["bounding_boxes"].__setitem__(8, [0.9, 0.9, 0.7, 0.6]),
        r"1 of 36 boxes lies? before the first",
    ),
    "boxes in percent": (boxes(lambda b: b * 100), "may be pixels or percent"),
    "fractions and pixels": (
        lambda data: data["video_1"]["object_tracking"][0].update(
            bounding_boxes=(np.array(track(0, "", 0.1)["bounding_boxes"]) * PIXELS).tolist()
        ),
        "are fractions of the frame, and others reach",
    ),
    "boxes of a larger frame": (boxes(lambda b: b * 2 * PIXELS), "would lie outside of a frame such as 640 x 480"),
    "pixels without a resolution": (
        also(boxes(lambda b: b * PIXELS), no_metadata("resolution")),
        "the resolution of their videos is not known",
    ),
    "seconds in one video": (
        lambda data: tracks(times(1e-6))({"video_2": data["video_2"]}),
        "contradict each other",
    ),
    "boxes after the end": (metadata(num_frames=60), "boxes come after the end of their videos"),
    "neither frame ids nor times": (
        tracks(drop("frame_ids", "timestamps")),
        "has neither `timestamps` nor `frame_ids`: add one",
    ),
    "segment ends before it starts": (
        actions(lambda s: s.update(timestamps=s["timestamps"][::-1])),
        "it ends before it starts: put its start first",
    ),
    "segment after the end": (
        actions(also(drop("frame_ids"), put(timestamps=[40_000_000, 41_000_000]))),
        "it lies after the end of the video",
    ),
    "segment without a label": (actions(put(label=None)), r"`action_localisation`\[0\] has the field `label` = None"),
    "an answer beyond the options": (questions(put(answer_id=3)), "one of the 3 options, counted from 0"),
    "two answers that differ": (questions(put(answer="3")), "the option that `answer_id` names"),
    "an answer that no option is": (
        questions(also(drop("answer_id"), put(answer="4"))),
        "the text or letter of one of 3",
    ),
    "frame rate as text": (metadata(frame_rate="30"), r"`metadata` has the field `frame_rate` = '30'"),
    "an unknown unit": (metadata(box_unit="px"), "one of fraction, pixel"),
}
SAID: dict[str, tuple[Change, str]] = {
    "frame ids without a frame rate": (
        also(tracks(drop("timestamps")), no_metadata("frame_rate")),
        "its frame ids cannot be turned into times: it is left out",
    ),
    "pixels of one video without a resolution": (
        also(
            boxes(lambda b: b * PIXELS),
            metadata(box_unit="pixel"),
            lambda data: drop("resolution")(data["video_1"]["metadata"]),
        ),
        "its boxes are in pixels of an unknown resolution: it is left out",
    ),
    "empty label": (tracks(put(label="")), r"the label of a track names nothing \(id 0\)"),
    "label of punctuation": (actions(put(label="???")), "the label of an action names nothing"),
    "unknown parent": (
        actions(put(parent_objects=[1, 99])),
        r"parent object that has no track \(action 0: parent 99\)",
    ),
    "segment without length": (
        actions(lambda s: s.update(timestamps=[10**6] * 2, frame_ids=[30] * 2)),
        "it has no length",
    ),
    "segment goes on after the end": (
        actions(also(drop("frame_ids"), put(timestamps=[9_000_000, 12_000_000]))),
        "it goes on after the end of the video",
    ),
    "times a little off": (
        tracks(lambda t: t.update(timestamps=[v + 300_000 for v in t["timestamps"]])),
        "differ a little",
    ),
    "two boxes in one frame": (
        tracks(lambda t: t.update(frame_ids=[0, 0, *t["frame_ids"][2:]], timestamps=[0, 0, *t["timestamps"][2:]])),
        "several boxes at one time",
    ),
    "box without area": (
        tracks(lambda t: t["bounding_boxes"].__setitem__(0, [0.1, 0.1, 0.1, 0.4])),
        "boxes without area",
    ),
}
"""Read, with this warning."""


def write(folder: Path, data: Record, name: str = "all_train.json") -> Path:
    path = folder / "annotations" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def content(video: Video) -> list[object]:
    """Everything that was read about a video, times and boxes rounded to a thousandth."""
    return [
        *[
            (t.id, t.label, t.is_masked.tolist(), t.boxes.round(3).tolist(), t.times_s.round(3).tolist())
            for t in video.tracks[:2]
        ],
        *[(t.frame_ids.tolist()) for t in video.tracks[:2]],
        *[
            (s.id, s.label, s.parent_objects, round(s.start_s, 3), round(s.end_s, 3))
            for s in video.actions + video.sounds
        ],
        *video.questions,
        video.split,
    ]


def loaded(folder: Path, data: Record) -> dict[str, list[object]]:
    write(folder, data)
    return {video.video_id: content(video) for video in load_dataset(folder).videos}


def changed(change: Change) -> Record:
    data = annotations()
    change(data)
    return data
