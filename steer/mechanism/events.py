"""One event: what is lost without a latent there, and what is gained by its content in a frame where nothing happens.

Ablating the latent in the frames of one event asks whether it is necessary: how far does the expected count fall? The
frame of the event in which the latent is strongest is then put into a frame without an event, patch by patch: the
latent's activations alone, all others, all of them, or the whole residual. How far the count rises says what is
sufficient. Controls: directions of the same norms at the event, and the residual of another frame without an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ask.inference import video_means
from steer.codes import Scene, VideoCodes
from steer.controls import matched_change, random_directions
from steer.edits.partners import true_count
from steer.edits.scopes import frames_that_fire, of_frames
from steer.effects import draw_seed
from steer.mechanism.matched import Bench, Shifts, change_of, estimate, written
from steer.mechanism.occurrences import EventLabel, events_of, strong_frames
from steer.targets import Target

N_RANDOM = 4
"""Directions of the same norms per event."""
INSERTED = ("latent", "others", "codes", "residual", "quiet residual")
"""What is put into a frame without an event; the last one comes from another such frame."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """One event of a video with the frames that its edits need."""

    frames: Bool[np.ndarray, " n_t"]
    source: int
    """The frame of the event in which the latent is strongest."""
    quiet: int
    """The frame without an event that is farthest from all events."""
    other_quiet: int | None
    """Another such frame, whose residual must not count; None where there is only one."""


def moments(
    events: Sequence[Bool[np.ndarray, " n_t"]],
    total: Float[np.ndarray, " n_t"],
    strong: Bool[np.ndarray, " n_t"],
) -> list[Moment]:
    """The events whose frames the latent fires in, each with frames in which nothing happens.

    Args:
        events: frames of each event of a video.
        total: the latent's activations per frame.
        strong: frames in which it fires strongly.
    """
    busy = np.any([*events, strong], axis=0)
    quiet = np.flatnonzero(~busy)
    if not len(quiet):
        return []
    distance = (
        np.abs(quiet[:, None] - np.flatnonzero(busy)[None, :]).min(axis=1) if busy.any() else np.zeros(len(quiet))
    )
    order = quiet[np.lexsort((quiet, -distance))]
    return [
        Moment(
            frames=frames,
            source=int(np.argmax(np.where(frames, total, -1.0))),
            quiet=int(order[0]),
            other_quiet=int(order[1]) if len(order) > 1 else None,
        )
        for frames in events
        if total[frames].sum() > 0
    ]


def event_rows(bench: Bench, target: Target, label: EventLabel | None) -> list[dict[str, Any]]:
    """Rows of events.parquet for one target: one per event and edit.

    Args:
        bench: the model and the held-out questions.
        target: the latents.
        label: annotated events of its subject; None to take its own strong firing.
    """
    rows: list[dict[str, Any]] = []
    for video_id in bench.asked(target.subject):
        case, codes, scene = bench.matched(video_id, target.subject)
        n_t = scene.grid.n_t
        usual = bench.editor.reference
        found = events_of(label, scene, codes, target.latents, usual)
        if not found or not frames_that_fire(codes, target.latents, n_t).any():
            continue
        has_room = all(true_count(item) < max(item.values or ()) for item in case.items)
        total = codes.columns(target.latents).sum(dim=1).reshape(n_t, -1).sum(dim=1).double().cpu().numpy()
        for number, moment in enumerate(moments(found, total, strong_frames(codes, target.latents, usual, n_t))):
            names, edits = zip(*_edits(bench, target, case.sequences.visual, codes, scene, moment, number), strict=True)
            shifts = bench.shifts(case, edits)
            rows += _rows(target, video_id, number, moment, label, names, edits, shifts, has_room)
    return rows


def _edits(
    bench: Bench,
    target: Target,
    visual: Float[Tensor, "token d_in"],
    codes: VideoCodes,
    scene: Scene,
    moment: Moment,
    number: int,
) -> Iterator[tuple[str, Float[Tensor, "token d_in"]]]:
    """All edits of one event with their names."""
    decoder = bench.editor.sae.W_dec
    own = codes.columns(target.latents)
    at_event = of_frames(moment.frames, codes.n_tokens, own.device)
    ablation = change_of(codes, target.latents, torch.where(at_event[:, None], 0.0, own), decoder)
    yield "ablate", ablation
    generator = torch.Generator().manual_seed(draw_seed(bench.seed, f"{target.id}/{scene.video.video_id}/{number}"))
    for direction in random_directions(N_RANDOM, decoder.shape[1], generator).to(own.device):
        yield "random", matched_change(ablation, ablation.norm(dim=1, keepdim=True), direction[None])
    every = written(codes, decoder)
    alone = own @ decoder[list(target.latents)].float()
    content = {"latent": alone, "others": every - alone, "codes": every, "residual": visual.float()}
    for name, values in content.items():
        yield f"insert {name}", copied(values, moment.source, moment.quiet, scene.n_patches)
    if moment.other_quiet is not None:
        yield (
            "insert quiet residual",
            copied(visual.float(), moment.other_quiet, moment.quiet, scene.n_patches),
        )


def copied(values: Float[Tensor, "token d_in"], source: int, into: int, n_patches: int) -> Float[Tensor, "token d_in"]:
    """What to add so that one frame has another's values, patch by patch."""
    blocks = values.unflatten(0, (-1, n_patches))
    change = torch.zeros_like(blocks)
    change[into] = blocks[source] - blocks[into]
    return change.flatten(0, 1)


def _rows(
    target: Target,
    video_id: str,
    number: int,
    moment: Moment,
    label: EventLabel | None,
    names: Sequence[str],
    edits: Sequence[Float[Tensor, "token d_in"]],
    shifts: Shifts,
    has_room: bool,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(names):
        at = [place for place, each in enumerate(names) if each == name]
        sizes = edits[at[0]].norm(dim=1)
        rows.append(
            {
                "target": target.id,
                "subject": target.subject,
                "video_id": video_id,
                "event": number,
                "label": None if label is None else label.label,
                "first_frame": int(np.flatnonzero(moment.frames)[0]),
                "n_frames": int(moment.frames.sum()),
                "quiet_frame": moment.quiet,
                "edit": name,
                "has_room": has_room,
                "n_tokens_edited": int((sizes > 0).sum()),
                "mean_norm": float(sizes.sum()) / max(int((sizes > 0).sum()), 1),
                "delta_margin": float(shifts.margin[at].mean()),
                "delta_expected_count": float(shifts.count[at].mean()),
                "delta_answer": float(shifts.answer[at].mean()),
                "by_one": float(shifts.by_one[at].mean()),
                "largest": float(np.abs(shifts.count[at]).max()),
            }
        )
    return rows


def event_summary(rows: list[dict[str, Any]], target: Target, seed: int) -> list[dict[str, Any]]:
    """One row of event_summary.parquet: necessity and sufficiency of one target, in counts.

    Events of one video are averaged first.
    """
    if not rows:
        return []
    found: dict[str, Any] = {}
    for edit, column in (
        ("ablate", "ablated"),
        ("random", "random"),
        *((f"insert {name}", f"inserted_{name.replace(' ', '_')}") for name in INSERTED),
    ):
        # A count that no option exceeds cannot rise.
        own = [row for row in rows if row["edit"] == edit and (row["has_room"] or not edit.startswith("insert"))]
        values = video_means([row["delta_expected_count"] for row in own], [row["video_id"] for row in own])
        found |= estimate(values, seed).columns(column)
    ablated = [row for row in rows if row["edit"] == "ablate"]
    return [
        {
            "target": target.id,
            "subject": target.subject,
            "label": rows[0]["label"],
            "n_events": len(ablated),
            "n_videos": len({row["video_id"] for row in ablated}),
            "n_videos_with_room": len({row["video_id"] for row in ablated if row["has_room"]}),
            "by_one": float(
                video_means([row["by_one"] for row in ablated], [row["video_id"] for row in ablated]).mean()
            ),
            **found,
        }
    ]
