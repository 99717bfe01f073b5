"""Exact effects: run the edited model for one target, and for its controls, on the held-out videos.

Only videos in which the target fires are run; everywhere else its ablation and scaling change nothing, exactly.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ask.answers import changes
from ask.cases import Case
from ask.packing import Asked
from steer.codes import Scene, VideoCodes
from steer.controls import (
    FAMILIES,
    covariance_directions,
    matched_change,
    matched_latents,
    random_directions,
    random_signs,
    unit,
)
from steer.edits.interventions import edited, residual_change
from steer.edits.operations import EVERYWHERE, Operation
from steer.edits.placed import placed_logits, text_tokens
from steer.edits.scopes import scoped_tokens
from steer.reference import Reference
from steer.screens.prefix import Answers, Prefixes
from steer.targets import Target
from train_sae.sae import Sae

CHANGE_COLUMNS = (
    "delta_margin",
    "delta_accuracy",
    "right_to_wrong",
    "wrong_to_right",
    "delta_expected_count",
    "delta_option_mass",
    "kl",
)
CONTROL_COLUMNS = ("delta_margin", "delta_accuracy", "delta_expected_count")


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
    """What one operation on a target does to the residuals of one video."""

    change: Float[Tensor, "place d_in"]
    norms: Float[Tensor, "place latent"]
    """Norm of each latent's own share in the change."""
    tokens: Bool[Tensor, "row token"] | None = None
    """Where the change goes, in the order of rows and tokens; None for the visual tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Around:
    """What edits need to know of a video where they do not take place at all visual tokens, or swap."""

    case: Case
    scene: Scene
    partner: Callable[[], VideoCodes | None] = lambda: None
    """Activations of the video that a swap takes them from; None where none fits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Editor:
    """A model whose latents can be edited at a site: all that exact runs need besides the target and the video."""

    model: Asked
    sae: Sae
    reference: Reference
    batch_size: int

    @cached_property
    def prefixes(self) -> Prefixes:
        """What is known of the videos' prefixes, so that passes begin at the first edited token."""
        return Prefixes(self.model)

    def answers(
        self,
        case: Case,
        tokens: Bool[Tensor, "row token"] | None,
        changed: Iterable[Float[Tensor, "place d_in"]],
    ) -> Answers:
        """Answer a case's items once per edit; arguments as for `steer.edits.placed.placed_logits`."""
        if tokens is None:
            return self.prefixes.answers(case, changed, self.batch_size)
        return placed_logits(self.model, case, tokens, changed, self.batch_size)


def edit(editor: Editor, codes: VideoCodes, target: Target, operation: Operation, around: Around | None = None) -> Edit:
    """Change the target's latents in one video by an operation.

    Args:
        editor: the model and the SAE.
        codes: activations of the video's visual tokens.
        target: the latents.
        operation: what to do, and where.
        around: the video; not needed at all visual tokens.
    """
    scope, tokens = operation.scope, None
    decoder = editor.sae.W_dec[list(target.latents)].float()
    norms = decoder.norm(dim=1)
    inside: Tensor | None = None
    if scope != EVERYWHERE:
        assert around is not None, f"{operation} needs to know the video"
        if scope.is_text:
            tokens = text_tokens(around.case.sequences, scope)
            codes = VideoCodes.of(editor.sae, around.case.sequences.hidden[tokens])
        else:
            inside = scoped_tokens(scope, around.scene, codes, target.latents)
    before = codes.columns(target.latents)
    swapped = before
    if operation.kind == "swap":
        assert around is not None, f"{operation} needs to know the video"
        partner = around.partner()
        swapped = before if partner is None else partner.columns(target.latents)
    after = torch.stack(
        [
            edited(
                before[:, place],
                operation,
                clamp_value=editor.reference.quantile(latent, operation.strength) if operation.kind == "clamp" else 0.0,
                median_norm=editor.reference.median_norm,
                decoder_norm=float(norms[place]),
                swapped=swapped[:, place],
            )
            for place, latent in enumerate(target.latents)
        ],
        dim=1,
    )
    if inside is not None:
        after = torch.where(inside[:, None], after, before)
    return Edit(change=residual_change(before, after, decoder), norms=(after - before).abs() * norms, tokens=tokens)


def touches(codes: VideoCodes, target: Target, operation: Operation) -> bool:
    """Whether an operation may change anything in a video: ablating and scaling all visual tokens only where it fires.

    What a swap or an edit in a narrower scope changes is known when it is made.
    """
    always = operation.kind in ("add", "swap") or operation.scope != EVERYWHERE
    return always or codes.fires(target.latents)


def effects(
    editor: Editor,
    case: Case,
    codes: VideoCodes,
    target: Target,
    operations: Sequence[Operation],
    around: Around | None = None,
) -> list[dict[str, Any]]:
    """Rows of effects.parquet for one target and video."""
    touching = [operation for operation in operations if touches(codes, target, operation)]
    made = [(operation, edit(editor, codes, target, operation, around)) for operation in touching]
    made = [(operation, one) for operation, one in made if bool(one.change.any())]
    if not made:
        return []
    # Edits of one place share their passes.
    made.sort(key=lambda pair: str(pair[0].scope) if pair[0].scope.is_text else "")
    touching, edits = [operation for operation, _ in made], [one for _, one in made]
    parts = [editor.answers(case, own[0].tokens, (one.change for one in own)) for own in _by_place(made)]
    logits, mass = (torch.cat(each) for each in zip(*parts, strict=True))
    found = changes(case.logits, case.mass, logits, mass, case.correct, case.values)
    columns = {name: getattr(found, name).double().cpu().numpy() for name in CHANGE_COLUMNS}
    rows: list[dict[str, Any]] = []
    for number, (operation, made) in enumerate(zip(touching, edits, strict=True)):
        sizes = made.change.norm(dim=1)
        n_edited = int((sizes > 0).sum())
        for place, item in enumerate(case.items):
            rows.append(
                {
                    "target": target.id,
                    "operation": str(operation),
                    "item": item.item_id,
                    "video_id": item.video_id,
                    "kind": item.kind,
                    "counting": item.counting,
                    "n_tokens_edited": n_edited,
                    "mean_norm": float(sizes.sum()) / max(n_edited, 1),
                    **{name: float(values[number, place]) for name, values in columns.items()},
                }
            )
    return rows


def _by_place(made: Sequence[tuple[Operation, Edit]]) -> list[list[Edit]]:
    """Edits in lots that go to the same tokens, in their order."""
    groups = itertools.groupby(made, key=lambda pair: pair[0].scope if pair[0].scope.is_text else EVERYWHERE)
    return [[one for _, one in own] for _, own in groups]


@dataclass(frozen=True, kw_only=True, eq=False)
class Control:
    """Directions that stand in for a target's decoder directions."""

    family: str
    index: int
    directions: Float[Tensor, "latent d_in"]
    """Signed unit directions, one per latent of the target."""
    source: tuple[int, ...] = ()
    """Latents they were taken from (family `decoder`)."""


def draw_controls(editor: Editor, target: Target, n: int, seed: int) -> list[Control]:
    """Draw `n` controls of each family for a target; fewer decoder directions where fewer latents are alive.

    The draw depends on the seed and the target's name only, so that a resumed run draws the same.
    """
    generator = torch.Generator().manual_seed(draw_seed(seed, target.id))
    members, d_in = len(target.latents), editor.sae.d_in
    device = editor.sae.W_dec.device
    strength = editor.reference.mean_active * editor.sae.decoder_norm
    found: list[Control] = []
    for family in FAMILIES:
        sources: list[tuple[int, ...]] = [()] * n
        if family == "random":
            directions = random_directions(n * members, d_in, generator)
        elif family == "covariance":
            directions = covariance_directions(n * members, editor.reference.sample.cpu(), generator)
        else:
            exclude = torch.tensor(target.latents, device=device)
            matches = [
                matched_latents(n, latent, editor.reference.firing_rate, strength, exclude) for latent in target.latents
            ]
            sources = [tuple(int(latent) for latent in row) for row in zip(*matches, strict=True)]
            chosen = torch.tensor(sources, dtype=torch.int64).reshape(-1)
            directions = unit(editor.sae.W_dec[chosen.to(device)].float().cpu())
        directions = (directions * random_signs(len(directions), generator)[:, None]).unflatten(0, (-1, members))
        found += [
            Control(family=family, index=index, directions=directions[index].to(device), source=sources[index])
            for index in range(len(sources))
        ]
    # Families take turns, so that any number of controls from the first has equally many of each.
    return sorted(found, key=lambda control: control.index)


@dataclass
class ControlSums:
    """Effects of the controls of one target, summed over videos."""

    target: Target
    operations: dict[str, Operation]
    """The operation whose norms stand for each magnitude."""
    controls: list[Control]
    n_run: int = 0
    """How many of the controls have run, from the first."""
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    """Per magnitude: [control, column] sums over videos of the video's mean over the items of the target's subject."""

    @classmethod
    def start(cls, target: Target, operations: Sequence[Operation], controls: list[Control]) -> ControlSums:
        """Group the operations by the norms of their changes; the first of each group stands for it."""
        groups: dict[str, Operation] = {}
        for operation in operations:
            groups.setdefault(operation.magnitude, operation)
        zeros = {name: np.zeros((len(controls), len(CONTROL_COLUMNS))) for name in groups}
        return cls(target=target, operations=groups, controls=controls, sums=zeros)

    def add(
        self,
        editor: Editor,
        case: Case,
        codes: VideoCodes,
        which: slice = slice(None),
        around: Around | None = None,
    ) -> int:
        """Run some controls on one video's questions of the target's subject; returns the number of edited answers."""
        self.n_run = max(self.n_run, which.indices(len(self.controls))[1])
        if not self.controls or all(item.subject != self.target.subject for item in case.items):
            return 0
        only = case.about(self.target.subject)
        n_answers = 0
        for name, operation in self.operations.items():
            if not touches(codes, self.target, operation):
                continue
            made = edit(editor, codes, self.target, operation, replace(around, case=only) if around else None)
            if not bool(made.change.any()):
                continue
            changed = self._changes(made, which)
            logits, mass = editor.answers(only, made.tokens, changed)
            found = changes(only.logits, only.mass, logits, mass, only.correct, only.values)
            for column, values in enumerate(CONTROL_COLUMNS):
                self.sums[name][which, column] += getattr(found, values).double().mean(dim=1).cpu().numpy()
            n_answers += len(self.controls[which]) * len(only.items)
        return n_answers

    def rows(self, n_items: int, n_videos: int) -> list[dict[str, Any]]:
        """Rows of controls.parquet; videos in which nothing was edited count as zeros."""
        return [
            {
                "target": self.target.id,
                "magnitude": name,
                "family": control.family,
                "index": control.index,
                "source": list(control.source),
                "n_items": n_items,
                "n_videos": n_videos,
                **dict(zip(CONTROL_COLUMNS, (sums[place] / n_videos).tolist(), strict=True)),
            }
            for name, sums in self.sums.items()
            for place, control in enumerate(self.controls[: self.n_run])
        ]

    def means(self, name: str, n_videos: int) -> list[float]:
        """Mean change of the margin by each control of one magnitude that has run."""
        return (self.sums[name][: self.n_run, 0] / n_videos).tolist()

    def _changes(self, made: Edit, which: slice = slice(None)) -> Iterator[Tensor]:
        return (matched_change(made.change, made.norms, control.directions) for control in self.controls[which])


def draw_seed(seed: int, name: str) -> int:
    """Seed of one draw, which depends on the stage's seed and a name only."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7])
