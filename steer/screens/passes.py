"""Passes over many small edits of one video: the whole effect, and what the questions see of it at once.

`Passes` goes on from the known prefix of a video where the model shows its keys and values, and otherwise runs every
token of every edit (`ask.cases.edited_logits`); which of the two is checked once, on the first video. Direct effects
exist in the first case only.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ask.answers import Changes, changes
from ask.byte_cache import ByteCache
from ask.cases import Case, edited_logits
from collect.printable import printable
from steer.codes import CodedCases, VideoCodes
from steer.effects import Editor
from steer.screens.prefix import Answers, KnownPrefix, SparseChange

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference between logits of passes that must agree, relative to their size, in float32."""
MAX_BYTES = 2**30
"""Of the prefixes that are kept."""


class Passes:
    """Edited passes over a run's videos."""

    def __init__(self, editor: Editor, cases: CodedCases) -> None:
        """Keep no prefix yet."""
        self.editor = editor
        self.cases = cases
        self._prefixes = ByteCache(self._build, lambda prefix: prefix.n_bytes, MAX_BYTES)
        self._shows: bool | None = None

    def shows_prefix(self, video_id: str) -> bool:
        """Whether the model goes on from a known prefix, and so has direct effects; tried once, on this video."""
        if self._shows is None:
            self._shows = self._agrees(*self.cases[video_id])
            if not self._shows:
                name, site = printable(self.editor.model.vlm.name), self.editor.model.site
                logger.info(
                    "%s does not go on from known keys and values at %s: edits run every token, and there is no screen "
                    "by direct effects",
                    name,
                    site,
                )
        return self._shows

    def total(self, video_id: str, edits: Sequence[SparseChange]) -> Changes:
        """What each edit changes in the answers about a video, exactly; `[edit, item]` each."""
        case, _ = self.cases[video_id]
        size = self.editor.batch_size
        if not self.shows_prefix(video_id):
            dense = (_dense(case, each) for each in edits)
            return _changed(case, edited_logits(self.editor.model, case, dense, size))
        # What is before the first edited token of a batch is not run, so those that begin late are run together.
        first = [int(each.token[0]) if len(each.token) else -1 for each in edits]
        order = sorted(range(len(edits)), key=lambda place: -first[place])
        prefix = self._prefixes[video_id]
        found = [
            prefix.total([edits[at] for at in order[start : start + size]]) for start in range(0, len(order), size)
        ]
        back = torch.tensor(order, device=case.logits.device).argsort()
        logits, mass = (torch.cat(each)[back] for each in zip(*found, strict=True))
        return _changed(case, (logits, mass))

    def direct(self, video_id: str, edits: Sequence[SparseChange]) -> Float[Tensor, "edit item"]:
        """What each edit changes in the margins if the tokens of the questions alone see it."""
        assert self.shows_prefix(video_id), "this model has no direct effects"
        case, _ = self.cases[video_id]
        prefix, size = self._prefixes[video_id], self.editor.batch_size
        found = [prefix.direct(edits[start : start + size]) for start in range(0, len(edits), size)]
        logits, mass = (torch.cat(each) for each in zip(*found, strict=True))
        return _changed(case, (logits, mass)).delta_margin

    def _build(self, video_id: str) -> KnownPrefix:
        return KnownPrefix(self.editor.model, self.cases[video_id][0])

    def _agrees(self, case: Case, codes: VideoCodes) -> bool:
        """Whether passes behind a known prefix answer as whole passes do."""
        if not case.sequences.packed or not len(codes.latent):
            return False
        latent = int(codes.latent[-1])
        edits = ablations(self.editor, codes, [latent])
        nothing = [SparseChange(token=each.token[:0], change=each.change[:0]) for each in edits]
        expected, _ = edited_logits(self.editor.model, case, [_dense(case, edits[0])], 1)
        try:
            prefix = KnownPrefix(self.editor.model, case)
            pairs = [(prefix.total(edits)[0], expected), (prefix.direct(nothing)[0], case.logits[None])]
            _ = prefix.direct(edits)
        except (TypeError, RuntimeError, ValueError, KeyError, AttributeError):
            return False
        tolerance = TOLERANCE if self.editor.model.vlm.dtype == torch.float32 else 2.0**-5
        size = max(1.0, float(case.logits.abs().max()))
        return all(float((got - wanted).abs().max()) <= tolerance * size for got, wanted in pairs)


def ablations(editor: Editor, codes: VideoCodes, latents: Sequence[int]) -> list[SparseChange]:
    """What the ablation of each latent adds to the residuals of a video's visual tokens."""
    decoder = editor.sae.W_dec
    order = torch.argsort(codes.latent, stable=True)
    wanted = torch.tensor(list(latents), device=order.device)
    sorted_latents = codes.latent[order]
    starts = torch.searchsorted(sorted_latents, wanted).tolist()
    stops = torch.searchsorted(sorted_latents, wanted, right=True).tolist()
    return [
        SparseChange(
            token=codes.token[order[start:stop]],
            change=-codes.value[order[start:stop], None] * decoder[latent].float(),
        )
        for latent, start, stop in zip(latents, starts, stops, strict=True)
    ]


def joined(edits: Sequence[SparseChange], n_tokens: int) -> SparseChange:
    """All edits together."""
    token = torch.cat([each.token for each in edits])
    tokens, place = token.unique(return_inverse=True)
    assert not len(tokens) or int(tokens[-1]) < n_tokens
    change = torch.zeros(len(tokens), edits[0].change.shape[1], device=token.device)
    return SparseChange(token=tokens, change=change.index_add(0, place, torch.cat([each.change for each in edits])))


def _dense(case: Case, edit: SparseChange) -> Float[Tensor, "visual d_model"]:
    shape = len(case.sequences.visual_positions), edit.change.shape[1]
    return torch.zeros(shape, device=edit.change.device).index_add(0, edit.token, edit.change)


def _changed(case: Case, found: Answers) -> Changes:
    return changes(case.logits, case.mass, *found, case.correct, case.values)
