"""From a scope to the visual tokens of one video: what is annotated there, and when latents fire.

Visual tokens run time step by time step, so a set of frames is a set of whole blocks of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from collect.data.perception_test import Video
from collect.errors import UserError
from collect.printable import printable
from features.labels.events import event_frames
from features.labels.labelling import lay_tracks
from features.labels.names import normalise_name, object_names
from features.labels.unit_labels import MIN_COVER
from steer.codes import Scene, VideoCodes
from steer.edits.operations import Operation, Scope

N_NAMED = 30
"""Labels that a refusal names."""


def frames_that_fire(codes: VideoCodes, latents: Sequence[int], n_t: int) -> Bool[np.ndarray, " n_t"]:
    """Time steps in which any of some latents fires on any token."""
    fires = torch.isin(codes.latent, torch.tensor(list(latents), device=codes.latent.device))
    found = np.zeros(n_t, dtype=bool)
    found[(codes.token[fires] // (codes.n_tokens // n_t)).cpu().numpy()] = True
    return found


def runs_of(frames: Bool[np.ndarray, " n_t"]) -> list[tuple[int, int]]:
    """First and last time step of each run of marked ones, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], frames, [False]]).astype(np.int8)))
    return [(int(start), int(stop) - 1) for start, stop in edges.reshape(-1, 2)]


def of_frames(frames: Bool[np.ndarray, " n_t"], n_tokens: int, device: torch.device) -> Bool[Tensor, " token"]:
    """The tokens of some time steps."""
    return torch.from_numpy(np.repeat(frames, n_tokens // len(frames))).to(device)


def scoped_tokens(scope: Scope, scene: Scene, codes: VideoCodes, latents: Sequence[int]) -> Bool[Tensor, " token"]:
    """The visual tokens of a scope; none where the video has no such thing.

    Args:
        scope: not one among the tokens of the text.
        scene: the video's annotations and grid.
        codes: activations of its visual tokens.
        latents: the target's latents, whose firing makes an event.
    """
    assert not scope.is_text, "a scope in the text has no visual tokens"
    device, n_t = codes.value.device, scene.grid.n_t
    if scope.kind == "visual":
        return torch.ones(codes.n_tokens, dtype=torch.bool, device=device)
    if scope.kind == "track":
        return torch.from_numpy(_covered(scene, scope.label or "")).to(device)
    frames: NDArray[np.bool_] = np.zeros(n_t, dtype=bool)
    if scope.kind == "action":
        wanted = normalise_name(scope.label or "")
        own = [segment for segment in scene.video.actions if normalise_name(segment.label) == wanted]
        if own:
            frames |= np.any(event_frames(own, scene.grid.spans_s) >= MIN_COVER, axis=0)
    elif scope.kind == "event":
        for first, last in runs_of(frames_that_fire(codes, latents, n_t))[:1]:
            frames[first : last + 1] = True
    else:
        frames[scope.first : scope.last + 1] = True
    return of_frames(frames, codes.n_tokens, device)


def require_scopes(operations: Sequence[Operation], videos: Sequence[Video], n_steps: int) -> None:
    """Check that every scope has something to take place at; a misspelt one would change nothing, and say so nowhere.

    Args:
        operations: with their scopes.
        videos: those that are edited.
        n_steps: time steps of the longest of their clips.

    Raises:
        UserError: no video has anything with a label, or no clip has as many time steps.
    """
    known = {
        "track": sorted({name for video in videos for track in video.tracks for name in object_names(track.label)}),
        "action": sorted({normalise_name(segment.label) for video in videos for segment in video.actions}),
    }
    for operation in operations:
        scope = operation.scope
        if scope.kind in known and normalise_name(scope.label or "") not in known[scope.kind]:
            there = ", ".join(printable(name, 60) for name in known[scope.kind][:N_NAMED])
            more = f" and {len(known[scope.kind]) - N_NAMED} more" if len(known[scope.kind]) > N_NAMED else ""
            what = {"track": "tracks", "action": "action segments"}[scope.kind]
            raise UserError(
                f"--operations {printable(operation)!r}: no held-out video that is asked about has {what} with that "
                f"label: {f'choose from {there}{more}' if there else f'none of them has any {what}'}."
            )
        if scope.kind == "frames" and scope.last >= n_steps:
            raise UserError(
                f"--operations {printable(operation)!r}: the clips have {n_steps} time steps, numbered from 0: give "
                f"FIRST-LAST of at most {n_steps - 1}."
            )


def _covered(scene: Scene, label: str) -> Bool[np.ndarray, " token"]:
    """Tokens at least half covered by the box of a track that goes by a name."""
    wanted = normalise_name(label)
    rows = [row for row, track in enumerate(scene.video.tracks) if wanted in object_names(track.label)]
    if not rows:
        return np.zeros(scene.grid.n_tokens, dtype=bool)
    return np.asarray((lay_tracks(scene.video, scene.grid).cover[rows] >= MIN_COVER).any(axis=0))
