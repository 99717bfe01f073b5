"""Rivals: what anyone could do without the latent, with the norms of its ablation.

    count difference   where the visual tokens of train videos differ with the right answer to the subject's questions
    mean shift         from the text alone: tokens of the subject's questions against those of other counting questions
    moved              the ablation itself on other tokens, drawn at random

The first two are directions on the same tokens. They are no null: both know what is counted, and a latent that stands
for a count must do more than they do. Each is drawn from bootstrap samples of the train videos, in both signs. The
third says whether it matters where the latent stands. The strongest draw of each speaks against the latent.

Source: the mean shift of Gan et al. (2025), "Textual Steering Vectors Can Improve Visual Understanding in Multimodal
LLMs"; differences in means as in Marks and Tegmark (2023), "The Geometry of Truth".
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steer.controls import matched_change, moved_change, unit
from steer.edits.operations import Scope
from steer.edits.partners import true_count
from steer.edits.placed import text_tokens
from steer.effects import draw_seed
from steer.mechanism.matched import Bench, Real, change_of, estimate
from steer.targets import Target

DRAWS = 5
"""Bootstrap samples of the train videos, each in both signs; of other tokens twice as many."""
MOVED = "moved"


def rival_rows(train: Bench, held_out: Bench, target: Target) -> list[dict[str, Any]]:
    """Rows of rivals.parquet for one target: one per rival that can be made."""
    generator = torch.Generator().manual_seed(draw_seed(held_out.seed, f"rivals/{target.id}"))
    means = {
        "count difference": count_means(train, target.subject),
        "mean shift": text_means(train, target.subject),
    }
    directions = {name: drawn(*found, generator) for name, found in means.items() if found is not None}
    signed = {name: torch.cat([each, -each]) for name, each in directions.items()}
    margins, counts = list[Real](), list[Real]()
    for video_id in held_out.asked(target.subject):
        case, codes, _ = held_out.matched(video_id, target.subject)
        own = codes.columns(target.latents)
        ablation = change_of(codes, target.latents, torch.zeros_like(own), held_out.editor.sae.W_dec)
        rows = 1 + 2 * DRAWS * (len(signed) + 1)
        if not bool(ablation.any()):
            margins.append(np.zeros(rows))
            counts.append(np.zeros(rows))
            continue
        norms = ablation.norm(dim=1, keepdim=True)
        every = torch.cat(list(signed.values())).to(ablation.device) if signed else ablation[:0]
        elsewhere = torch.Generator().manual_seed(draw_seed(held_out.seed, f"moved/{target.id}/{video_id}"))
        edits = itertools.chain(
            [ablation],
            (matched_change(ablation, norms, row[None]) for row in every),
            (moved_change(ablation, elsewhere) for _ in range(2 * DRAWS)),
        )
        shifts = held_out.shifts(case, edits)
        margins.append(shifts.margin)
        counts.append(shifts.count)
    return [] if not margins else _rows(target, [*signed, MOVED], np.stack(margins), np.stack(counts), held_out.seed)


def _rows(target: Target, names: list[str], margins: Real, counts: Real, seed: int) -> list[dict[str, Any]]:
    """Average over videos; column 0 is the latent's ablation, then come the draws of each rival."""
    rows: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        own = slice(1 + 2 * DRAWS * place, 1 + 2 * DRAWS * (place + 1))
        largest = int(np.argmax(np.abs(counts[:, own].mean(axis=0)))) + own.start
        # Paired over videos, so that videos that anything moves weigh on both sides.
        ahead = np.abs(counts[:, 0]) - np.abs(counts[:, largest])
        rows.append(
            {
                "target": target.id,
                "subject": target.subject,
                "rival": name,
                "n_draws": 2 * DRAWS,
                "n_videos": len(counts),
                **estimate(counts[:, 0], seed).columns("latent"),
                **estimate(counts[:, largest], seed).columns("rival_largest"),
                "rival_margin": float(margins[:, largest].mean()),
                **estimate(ahead, seed).columns("ahead"),
            }
        )
    return rows


def count_means(train: Bench, subject: str) -> tuple[Float[Tensor, "video d_in"], Float[Tensor, " video"]] | None:
    """Mean visual residual of each train video, and the right answer there; None where all answers are equal."""
    means, counts = list[Tensor](), list[float]()
    for video_id, items in train.asked(subject).items():
        means.append(train.cases[video_id][0].sequences.visual.float().mean(dim=0).cpu())
        counts.append(float(np.mean([true_count(item) for item in items])))
    if len(set(counts)) < 2:
        return None
    return torch.stack(means), torch.tensor(counts)


def text_means(train: Bench, subject: str) -> tuple[Float[Tensor, "group d_in"], Float[Tensor, " group"]] | None:
    """Mean residual of the question's tokens, per train video and group: the subject's (1) and all others (0)."""
    means, groups = list[Tensor](), list[float]()
    for video_id in dict.fromkeys(item.video_id for item in train.items if item.counting):
        case, _ = train.cases[video_id]
        seq = case.sequences
        inside = text_tokens(seq, Scope(kind="question"))
        for group, wanted in ((1.0, True), (0.0, False)):
            places = [at for at, item in enumerate(case.items) if item.counting and (item.subject == subject) == wanted]
            numbers = torch.tensor([3 * at + order for at in places for order in range(3)], device=inside.device)
            chosen = inside & torch.isin(seq.question, numbers)
            if places and bool(chosen.any()):
                means.append(seq.hidden[chosen].float().mean(dim=0).cpu())
                groups.append(group)
    if len(set(groups)) < 2:
        return None
    return torch.stack(means), torch.tensor(groups)


def drawn(
    means: Float[Tensor, "row d_in"], values: Float[Tensor, " row"], generator: torch.Generator
) -> Float[Tensor, "draw d_in"]:
    """Unit directions in which the means differ with the values, from bootstrap samples of the rows.

    Of two values this is the difference between the means of the two groups, and of more the covariance with the value.
    """
    found: list[Tensor] = []
    while len(found) < DRAWS:
        chosen = torch.randint(0, len(means), (len(means),), generator=generator)
        some = values[chosen]
        if len(some.unique()) < 2:
            continue
        found.append((some - some.mean()) @ (means[chosen] - means[chosen].mean(dim=0)))
    return unit(torch.stack(found))
