"""Routes: through which tokens, and in which layers, the answer reads an event.

An event's tokens are hidden from later visual tokens, from the tokens of the question, or from the last token, which
answers, in one window of layers after another. What the answer loses went along that route; the same cut at frames
without an event says what any cut loses. The latent's ablation is then repeated under each cut: what is left of it took
other routes. With attention kept as it was, the ablation changes what is read, but not where.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from ask.cases import Case
from ask.questions import N_OPTIONS
from steer.edits.operations import Scope
from steer.edits.placed import text_tokens
from steer.edits.scopes import of_frames
from steer.mechanism.attention import AttentionEdits, Cut, Kept, logits_under
from steer.mechanism.matched import Bench, change_of, estimate, shifts_of
from steer.mechanism.occurrences import EventLabel, events_of, strong_frames
from steer.targets import Target

ROUTES = ("later visual", "question", "answer", "all")
"""Who is kept from reading the event's tokens."""
MOST_VIDEOS = 10
"""Held-out videos of a target that are run, the first by id: every cut is a pass of its own."""
MOST_WINDOWS = 3
"""Windows that the layers after the site are divided into; besides, all of them together."""


def windows(n_layers: int) -> list[range]:
    """All layers after the site, then parts of them of about equal size where there are several."""
    parts = np.array_split(np.arange(n_layers), min(MOST_WINDOWS, n_layers))
    single = [range(int(part[0]), int(part[-1]) + 1) for part in parts] if n_layers > 1 else []
    return [range(n_layers), *single]


def readers(case: Case, route: str, event: Bool[Tensor, " token"]) -> Bool[Tensor, " token"]:
    """The tokens of a packed row that a route leads to.

    Args:
        case: the video and its questions, all in one row.
        route: one of `ROUTES`.
        event: the event's tokens among those of the row.
    """
    seq = case.sequences
    visual = torch.zeros_like(event)
    visual[seq.visual_positions] = True
    if route == "later visual":
        return visual & ~event
    question = text_tokens(seq, Scope(kind="question"))[0]
    last = text_tokens(seq, Scope(kind="last"))[0]
    if route == "answer":
        return last
    return question & ~last if route == "question" else (visual & ~event) | question


def flow_rows(bench: Bench, target: Target, label: EventLabel | None) -> list[dict[str, Any]]:
    """Rows of flow.parquet for one target: per route and window of layers, and with attention kept as it was.

    Videos whose questions cannot share a row are left out, as are those without an event.
    """
    per_video: list[dict[tuple[str, int, int], dict[str, float]]] = []
    for video_id in bench.asked(target.subject):
        if len(per_video) == MOST_VIDEOS:
            break
        case, codes, scene = bench.matched(video_id, target.subject)
        n_t, usual = scene.grid.n_t, bench.editor.reference
        found = events_of(label, scene, codes, target.latents, usual)
        if not found or not case.sequences.packed:
            continue
        busy = np.any(found, axis=0)
        quiet = np.flatnonzero(~(busy | strong_frames(codes, target.latents, usual, n_t)))
        n_cut = min(int(busy.sum()), len(quiet))
        if n_cut == 0:
            continue
        # As late, on average, as the event's frames, so that as many tokens follow.
        order = quiet[np.argsort(np.abs(quiet - np.flatnonzero(busy).mean()), kind="stable")][:n_cut]
        control = np.isin(np.arange(n_t), order)
        own = codes.columns(target.latents)
        ablation = change_of(codes, target.latents, torch.zeros_like(own), bench.editor.sae.W_dec)
        event, quiet_tokens = (of_frames(frames, codes.n_tokens, own.device) for frames in (busy, control))
        per_video.append(dict(_video(bench, case, ablation, event, quiet_tokens)))
    return _averaged(per_video, target, label, bench.seed)


def _video(
    bench: Bench,
    case: Case,
    ablation: Tensor,
    event: Bool[Tensor, " visual"],
    quiet: Bool[Tensor, " visual"],
) -> Iterator[tuple[tuple[str, int, int], dict[str, float]]]:
    """Changes of the expected count in one video, by route and window."""
    seq, model = case.sequences, bench.editor.model
    n_layers = model.vlm.n_layers - model.vlm.resumable(model.site).layers_before
    hidden = seq.hidden.repeat(2, 1, 1)
    hidden[1, seq.visual_positions] += ablation.to(hidden.dtype)

    def counts(edits: AttentionEdits) -> tuple[float, float]:
        """Change of the expected count without and with the ablation."""
        logits, mass = logits_under(model, seq, hidden, edits)
        orders = (-1, N_OPTIONS)
        plain, ablated = shifts_of(case, logits.unflatten(1, orders), mass.unflatten(1, orders)).count
        return float(plain), float(ablated)

    free = Kept()
    clean = seq.hidden
    logits_under(model, seq, clean, AttentionEdits(record=free))
    plain, ablated = counts(AttentionEdits())
    yield ("free", 0, n_layers - 1), {"cut": plain, "control": 0.0, "ablation": ablated - plain}
    plain, ablated = counts(AttentionEdits(keep=free))
    yield ("attention kept", 0, n_layers - 1), {"cut": plain, "control": 0.0, "ablation": ablated - plain}
    for window in windows(n_layers):
        for route in ROUTES:
            found: dict[str, float] = {}
            for name, tokens in (("cut", event), ("control", quiet)):
                if name == "control" and len(window) < n_layers:
                    found[name] = float("nan")
                    continue
                keys = torch.zeros(seq.hidden.shape[1], dtype=torch.bool, device=event.device)
                keys[seq.visual_positions[tokens]] = True
                cut = Cut(queries=readers(case, route, keys), keys=keys, layers=window)
                plain, ablated = counts(AttentionEdits([cut]))
                found[name] = plain
                if name == "cut":
                    found["ablation"] = ablated - plain
            yield (route, window[0], window[-1]), found


def _averaged(
    per_video: list[dict[tuple[str, int, int], dict[str, float]]], target: Target, label: EventLabel | None, seed: int
) -> list[dict[str, Any]]:
    if not per_video:
        return []
    return [
        {
            "target": target.id,
            "subject": target.subject,
            "label": None if label is None else label.label,
            "route": route,
            "first_layer": first,
            "last_layer": last,
            "n_videos": len(per_video),
            **estimate([found[route, first, last]["cut"] for found in per_video], seed).columns("cut"),
            **estimate([found[route, first, last]["control"] for found in per_video], seed).columns("control"),
            **estimate([found[route, first, last]["ablation"] for found in per_video], seed).columns("ablation"),
        }
        for route, first, last in per_video[0]
    ]
