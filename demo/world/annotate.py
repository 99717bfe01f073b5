"""A scene as one record of Perception Test's annotation JSON, along with its full truth.

The record follows the benchmark's schema exactly: boxes normalised as x1, y1, x2, y2 about once per second, which
persist while something hides the object; microsecond timestamps; class ids of this world's own vocabulary. The truth
(every frame, every hidden state) is for tests only and is never read by a stage.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from demo.vlm.vocabulary import ACTIONS
from demo.world.motion import HAND_TRACK, Placement, final_ball_place, lamp_is_on, placements
from demo.world.questions import KINDS, Item, items
from demo.world.scene import FPS, Scene

ANNOTATED_EVERY = FPS  # frames between two annotated boxes
AUDIO_RATE = 16_000
ACTION_CLASSES = {**{f"{word} something": i for i, word in enumerate(ACTIONS.values())}, "swapping two cups": 3}
SOUND_CLASSES = {"Object:Click": 0, "Interaction:Tapping": 1}


def micros(seconds: float) -> int:
    """Seconds as the benchmark's integer microseconds."""
    return round(seconds * 1e6)


def frame_of(seconds: float, n_frames: int) -> int:
    """The frame shown at this second."""
    return int(np.clip(round(seconds * FPS), 0, n_frames))


def by_track(scene: Scene, frame: int) -> dict[int, Placement]:
    """The things of one frame by track id; if the hand holds several poses, the last one wins."""
    return {p.track: p for p in placements(scene, frame / FPS)}


def _box(p: Placement) -> list[float]:
    return [round(float(v), 6) for v in p.box]


def _tracks(scene: Scene) -> list[dict[str, Any]]:
    seen: dict[int, dict[str, Any]] = {}
    for frame in range(0, scene.n_frames, ANNOTATED_EVERY):
        for track, p in by_track(scene, frame).items():
            if not p.shown or p.scale < 0.4:
                continue
            record = seen.setdefault(
                track,
                {
                    "id": track,
                    "label": p.name,
                    "is_occluder": int(scene.kind == "cups" and p.name == "cup"),
                    "bounding_boxes": [],
                    "initial_tracking_box": [],
                    "frame_ids": [],
                    "timestamps": [],
                    "is_masked": [],
                },
            )
            record["bounding_boxes"].append(_box(p))
            record["initial_tracking_box"].append(int(not record["frame_ids"]))
            record["frame_ids"].append(frame)
            record["timestamps"].append(micros(frame / FPS))
            record["is_masked"].append(int(scene.kind == "cups" and p.hidden))
    return [seen[track] for track in sorted(seen)]


def _points(tracks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The centre of the first track's boxes; row 0 is y and row 1 is x, as in the benchmark."""
    out: list[dict[str, Any]] = []
    for number, track in enumerate(tracks[:1]):
        boxes = np.asarray(track["bounding_boxes"])
        x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        out.append(
            {
                "id": number,
                "label": f"centre of {track['label']}",
                "parent_objects": [track["id"]],
                "frame_ids": track["frame_ids"],
                "points": [y.round(6).tolist(), x.round(6).tolist()],
            }
        )
    return out


def _segment(
    number: int, label: str, label_id: int, parents: list[int], start: float, end: float, n_frames: int
) -> dict[str, Any]:
    return {
        "id": number,
        "label": label,
        "label_id": label_id,
        "parent_objects": parents,
        "timestamps": [micros(start), micros(end)],
        "frame_ids": [frame_of(start, n_frames), frame_of(end, n_frames)],
    }


def _actions(scene: Scene, tracked: set[int]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for a in scene.actions:
        label = f"{ACTIONS[a.kind]} something"
        parents = [t for t in (a.toy, HAND_TRACK) if t in tracked] or [-1]
        out.append(_segment(len(out), label, ACTION_CLASSES[label], parents, a.start, a.end, scene.n_frames))
    for s in scene.swaps:
        label = "swapping two cups"
        out.append(_segment(len(out), label, ACTION_CLASSES[label], [-1], s.start, s.end, scene.n_frames))
    return out


def sounds(scene: Scene) -> list[tuple[str, float, float, bool]]:
    """(class, start, end, visible) in seconds of every sound; the audio track is made from the same list."""
    clicks = [("Object:Click", a, a + 0.2, True) for a, _ in scene.lamp_on]
    taps = [("Interaction:Tapping", a.start, a.end, True) for a in scene.actions if a.kind == "tap"]
    return sorted(clicks + taps, key=lambda s: s[1])


def has_audio(scene: Scene) -> bool:
    """Every fifth video is silent and carries no sound annotation, as some of the benchmark's are."""
    return scene.index % 5 != 4


def _sound_segments(scene: Scene) -> list[dict[str, Any]]:
    if not has_audio(scene):
        return []
    return [
        {**_segment(i, label, SOUND_CLASSES[label], [-1], a, b, scene.n_frames), "is_visible": int(seen)}
        for i, (label, a, b, seen) in enumerate(sounds(scene))
    ]


def _questions(asked: list[tuple[Item, int, bool]]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for number, (item, answer_id, turned) in enumerate(asked):
        tag, area, reasoning = KINDS[item.kind]
        out.append(
            {
                "id": number,
                "question": item.question,
                "options": list(item.options(answer_id, turned)),
                "answer_id": answer_id,
                "area": area,
                "reasoning": reasoning,
                "tag": [tag],
            }
        )
    return out


def _grounded(scene: Scene, tracks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if scene.kind == "cups":
        return []
    answers = [t["id"] for t in tracks if str(t["label"]).startswith(f"{scene.asked_colour} ")]
    question = f"Track the {scene.asked_colour} toys."
    return [{"id": 0, "question": question, "answers": answers, "area": "semantics", "reasoning": "descriptive"}]


def annotation(scene: Scene, split: str, asked: list[tuple[Item, int, bool]]) -> dict[str, Any]:
    """The record of one video.

    Args:
        scene: the script.
        split: "train" or "valid".
        asked: for each of the scene's questions the item, the position of its right option, and whether the two wrong
            options are swapped.
    """
    tracks = _tracks(scene)
    audio = has_audio(scene)
    return {
        "metadata": {
            "split": split,
            "video_id": scene.video_id,
            "frame_rate": float(FPS),
            "num_frames": scene.n_frames,
            "resolution": [scene.height, scene.width],
            "audio_samples": round(scene.n_frames / FPS * AUDIO_RATE) if audio else 0,
            "audio_sample_rate": AUDIO_RATE if audio else 0,
            "is_cup_game": int(scene.kind == "cups"),
            "is_camera_moving": int(scene.camera_moving),
        },
        "object_tracking": tracks,
        "point_tracking": _points(tracks),
        "action_localisation": _actions(scene, {t["id"] for t in tracks}),
        "sound_localisation": _sound_segments(scene),
        "mc_question": _questions(asked),
        "grounded_question": _grounded(scene, tracks),
    }


def truth(scene: Scene) -> dict[str, Any]:
    """Everything the world knows about one video, frame by frame, for tests.

    `tracks[id]` holds per frame the exact box and whether it is `shown` (on the table) and `hidden` (fully covered).
    """
    tracks: dict[int, dict[str, Any]] = {}
    for frame in range(scene.n_frames):
        for track, p in by_track(scene, frame).items():
            row = tracks.setdefault(track, {"label": p.name, "frames": [], "boxes": [], "shown": [], "hidden": []})
            row["frames"].append(frame)
            row["boxes"].append(_box(p))
            row["shown"].append(int(p.shown))
            row["hidden"].append(int(p.hidden))
    return {
        "video_id": scene.video_id,
        "kind": scene.kind,
        "counts": {name: count.value for name, count in scene.counts.items()},
        "asked": {"colour": scene.asked_colour, "shape": scene.asked_shape, "action": scene.asked_action},
        "toys": [
            {"id": t.id, "colour": t.colour, "shape": t.shape, "visible": [list(v) for v in t.visible]}
            for t in scene.toys
        ],
        "actions": [{"kind": a.kind, "toy": a.toy, "start": a.start, "end": a.end} for a in scene.actions],
        "lamp_on": [list(v) for v in scene.lamp_on],
        "lamp_frames": [int(lamp_is_on(scene, f / FPS)) for f in range(scene.n_frames)],
        "swaps": [{"places": [s.left, s.right], "start": s.start, "end": s.end} for s in scene.swaps],
        "final_ball_place": final_ball_place(scene) if scene.kind == "cups" else None,
        "answers": {item.kind: item.answer for item in items(scene)},
        "tracks": tracks,
    }
