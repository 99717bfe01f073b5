"""Passes over many small edits of one video: the whole effect, and what the questions see of it at once.

`Passes` goes on from the known prefix of a video where the model shows its keys and values, and otherwise runs every
token of every edit (`ask.cases.edited_logits`). Direct effects exist in the first case only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ask.answers import Changes, changes
from ask.cases import Case, edited_logits
from steer.codes import CodedCases, VideoCodes
from steer.effects import Editor
from steer.screens.prefix import Answers, KnownPrefix, SparseChange, first_tokens


class Passes:
    """Edited passes over a run's videos."""

    def __init__(self, editor: Editor, cases: CodedCases) -> None:
        """Run nothing yet."""
        self.editor = editor
        self.cases = cases

    def shows_prefix(self, video_id: str) -> bool:
        """Whether the model goes on from a known prefix, and so has direct effects."""
        return self._prefix(video_id) is not None

    def total(self, video_id: str, edits: Sequence[SparseChange]) -> Changes:
        """What each edit changes in the answers about a video, exactly; `[edit, item]` each."""
        case, _ = self.cases[video_id]
        size = self.editor.batch_size
        prefix = self._prefix(video_id)
        if prefix is None:
            dense = (each.dense(len(case.sequences.visual_positions)) for each in edits)
            return _changed(case, edited_logits(self.editor.model, case, dense, size))
        # What is before the first edited token of a batch is not run, so those that begin late are run together.
        first = first_tokens(edits)
        order = sorted(range(len(edits)), key=lambda place: -first[place])
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        found = [prefix.total([edits[place] for place in batch]) for batch in batches]
        back = torch.tensor(order, device=case.logits.device).argsort()
        logits, mass = (torch.cat(each)[back] for each in zip(*found, strict=True))
        return _changed(case, (logits, mass))

    def direct(
        self, video_id: str, edits: Sequence[SparseChange], items: Sequence[int] | None = None
    ) -> Float[Tensor, "edit item"]:
        """What each edit changes in the margins of some or all items if the tokens of the questions alone see it."""
        assert self.shows_prefix(video_id), "this model has no direct effects"
        case, _ = self.cases[video_id]
        case = case if items is None else case.of_items(items)
        prefix = self.editor.prefixes.of(case)
        assert prefix is not None, "whether there is one does not depend on the items"
        size = self.editor.batch_size
        found = [prefix.direct(edits[start : start + size]) for start in range(0, len(edits), size)]
        logits, mass = (torch.cat(each) for each in zip(*found, strict=True))
        return _changed(case, (logits, mass)).delta_margin

    def _prefix(self, video_id: str) -> KnownPrefix | None:
        return self.editor.prefixes.of(self.cases[video_id][0])


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


def _changed(case: Case, found: Answers) -> Changes:
    return changes(case.logits, case.mass, *found, case.correct, case.values)
