"""Many questions after one visual prefix: the sequences that a forward pass runs, and how to read them.

All questions about a video, in all their option orders, share its prefix. Packed, they follow it one after another in a
single row, each seeing the prefix and itself but no other question, with the positions it would have alone: the visual
tokens, which are most of the work, are run only once instead of once per question. Unpacked, every question is a row of
its own. The two give the same logits; which one a model supports is checked by `packing_agrees`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ask.questions import LETTERS
from ask.unread import without_unread
from collect.vlm import Embedded, VideoVlm
from collect.vlm.sites import resume, stop_at

PACKING_TOLERANCE = 1e-3
"""Largest difference between packed and unpacked logits, relative to their spread, in float32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """Rows that a decoder runs; every question is a contiguous part of one of them."""

    hidden: Float[Tensor, "row token d_model"]
    """Residuals at the site named when they were made (input embeddings at first)."""
    packed: bool
    """Whether all questions share a row; otherwise each row is plainly causal."""
    position_ids: Int[Tensor, "*axes row token"]
    question: Int[Tensor, "row token"]
    """Number of the question that a token belongs to; -1 in the prefix and in padding."""
    question_row: Int[Tensor, " question"]
    last: Int[Tensor, " question"]
    """Index in its row of each question's last token, whose logits answer it."""
    visual_positions: Int[Tensor, " visual"]
    blocks: Int[Tensor, " token"] | None = None
    """Number of the block in which a token sees every other one, -1 outside blocks; None in a causal model."""
    deep: Float[Tensor, "deep visual d_model"] | None = None
    """What the model adds to the visual tokens after its first layers, if anything."""

    @property
    def n_bytes(self) -> int:
        """Memory held."""
        return self.hidden.nbytes + self.position_ids.nbytes + self.question.nbytes

    @property
    def n_prefix(self) -> int:
        """Tokens of the first row before its first question."""
        return int((self.question[0] >= 0).nonzero()[0, 0])

    @property
    def visual(self) -> Float[Tensor, "visual d_model"]:
        """Residuals of the visual tokens, which are the same in every row."""
        return self.hidden[0, self.visual_positions]


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """A model as it is asked: resumed at one site, and read at the option letters."""

    vlm: VideoVlm
    site: str
    letters: Int[Tensor, " letter"]
    """Token ids of the option letters."""

    @classmethod
    def at(cls, vlm: VideoVlm, site: str) -> Asked:
        """A model that is resumed at a site, with the letters of its own tokenizer."""
        return cls(vlm=vlm, site=site, letters=vlm.answer_ids(LETTERS))

    def to(self, site: str) -> Asked:
        """The same model, resumed at another site."""
        return replace(self, site=site)


def to_sequences(emb: Embedded, *, packed: bool) -> Sequences:
    """Lay out the embedded questions about one video; `emb` has one batch row per question.

    Args:
        emb: whole prompts that all have the same prefix.
        packed: all in one row, or each in its own.
    """
    n, device = len(emb.last), emb.last.device
    start = int(emb.visual_positions[-1]) + 1
    lengths = [int(last) + 1 for last in emb.last]
    deep = None if emb.deepstack is None else emb.deepstack[:, 0]  # of one clip, so the same in every row
    if not packed:
        columns = torch.arange(emb.inputs_embeds.shape[1], device=device)
        in_question = (columns >= start) & (columns <= emb.last[:, None])
        rows = torch.arange(n, device=device)
        return Sequences(
            hidden=emb.inputs_embeds,
            packed=False,
            position_ids=emb.position_ids,
            question=torch.where(in_question, rows[:, None], -1),
            question_row=rows,
            last=emb.last,
            visual_positions=emb.visual_positions,
            blocks=emb.blocks,
            deep=deep,
        )
    tails = [length - start for length in lengths]
    source_row = torch.tensor([0] * start + [row for row, tail in enumerate(tails) for _ in range(tail)], device=device)
    source_column = torch.cat([torch.arange(start), *(torch.arange(start, length) for length in lengths)]).to(device)
    question = torch.cat([torch.full((start,), -1, device=device), source_row[start:]])
    return Sequences(
        hidden=emb.inputs_embeds[source_row, source_column][None],
        packed=True,
        position_ids=emb.position_ids[..., source_row, source_column][..., None, :],
        question=question[None],
        question_row=torch.zeros(n, dtype=torch.int64, device=device),
        last=start + torch.tensor(tails, device=device).cumsum(0) - 1,
        visual_positions=emb.visual_positions,
        blocks=None if emb.blocks is None else emb.blocks[source_column],
        deep=deep,
    )


def visible(question: Int[Tensor, " token"]) -> Bool[Tensor, "token token"]:
    """Which key (column) each query (row) may see: earlier tokens of the prefix and of its own question."""
    causal = torch.ones(len(question), len(question), dtype=torch.bool, device=question.device).tril()
    return causal & ((question == -1)[None, :] | (question[:, None] == question[None, :]))


def restrict(seq: Sequences, questions: Sequence[int]) -> Sequences:
    """Keep some of the questions, renumbered in their old order, and drop the tokens of the others."""
    kept = torch.tensor(sorted(questions), device=seq.last.device)
    if not seq.packed:
        return replace(
            seq,
            hidden=seq.hidden[kept],
            position_ids=seq.position_ids[..., kept, :],
            question=torch.where(seq.question[kept] >= 0, torch.arange(len(kept), device=kept.device)[:, None], -1),
            question_row=torch.arange(len(kept), device=kept.device),
            last=seq.last[kept],
        )
    number = torch.full((len(seq.last) + 1,), -2, device=kept.device)
    number[kept] = torch.arange(len(kept), device=kept.device)
    number[-1] = -1  # the prefix, whose question number -1 indexes this entry
    question = number[seq.question[0]]
    tokens = (question > -2).nonzero()[:, 0]
    new_index = torch.cumsum(question > -2, dim=0) - 1
    return replace(
        seq,
        hidden=seq.hidden[:, tokens],
        position_ids=seq.position_ids[..., tokens],
        question=question[tokens][None],
        question_row=seq.question_row[kept],
        last=new_index[seq.last[kept]],
        blocks=None if seq.blocks is None else seq.blocks[tokens],
    )


def run_to(vlm: VideoVlm, seq: Sequences, sites: Sequence[str]) -> dict[str, Sequences]:
    """Run embedded sequences to some sites in one pass: site -> the sequences with the residuals there.

    Raises:
        UserError: the model has no such site, or cannot be resumed there.
    """
    parsed = {name: vlm.resumable(name) for name in sites}
    later = [site for site in parsed.values() if site.layers_before > 0]
    with torch.no_grad():
        found = stop_at(vlm.decoder, later, seq.hidden, **decoder_arguments(vlm, seq, 1, 0)) if later else {}
    return {name: replace(seq, hidden=found.get(name, seq.hidden)) for name in parsed}


def run_on(
    model: Asked, seq: Sequences, hidden: Float[Tensor, "rows token d_model"]
) -> Float[Tensor, "edit row token d_model"]:
    """Run from a site to the decoder's output.

    Differentiable with respect to `hidden` where gradients are enabled.

    Args:
        model: the model, at the site where `hidden` was read.
        seq: the sequences that `hidden` are copies of.
        hidden: one copy of `seq.hidden` after another, each with its own edit: rows = edits x rows of `seq`.
    """
    n_rows = len(seq.hidden)
    n_edits = len(hidden) // n_rows
    parsed = model.vlm.resumable(model.site)
    out = resume(model.vlm.decoder, parsed, hidden, **decoder_arguments(model.vlm, seq, n_edits, parsed.layer))
    return out.unflatten(0, (n_edits, n_rows))


def read_letters(
    model: Asked, seq: Sequences, out: Float[Tensor, "edit row token d_model"]
) -> tuple[Float[Tensor, "edit question letter"], Float[Tensor, "edit question"]]:
    """Read every question's answer from the decoder's output.

    Args:
        model: the model.
        seq: the sequences that were run.
        out: from `run_on`.

    Returns:
        The letters' logits, and the probability that the letters have together among the whole vocabulary.
    """
    logits = model.vlm.head(out[:, seq.question_row, seq.last])
    chosen = logits[..., model.letters]
    return chosen, (chosen.logsumexp(dim=-1) - logits.logsumexp(dim=-1)).exp()


def letter_logits(
    model: Asked, seq: Sequences, hidden: Float[Tensor, "rows token d_model"]
) -> tuple[Float[Tensor, "edit question letter"], Float[Tensor, "edit question"]]:
    """Run on from a site and read every question: `run_on` and `read_letters`, without what nobody reads."""
    if not seq.packed:
        return read_letters(model, seq, run_on(model, seq, hidden))
    with without_unread(model.vlm.decoder, seq.n_prefix, seq.last):
        out = run_on(model, seq, hidden)
    return read_letters(model, seq, out)


def packing_agrees(model: Asked, emb: Embedded) -> bool:
    """Whether the model answers packed questions the same way as one by one, through `vlm.logits_from`.

    Models that refuse or ignore the caller's attention mask do not.
    """
    vlm, site = model.vlm, model.site
    with torch.no_grad():
        expected = vlm.logits_from(site, vlm.residual(emb, site), emb)[:, model.letters]
        try:
            seq = run_to(vlm, to_sequences(emb, packed=True), [site])[site]
            got, _ = letter_logits(model, seq, seq.hidden)
        except (TypeError, ValueError, RuntimeError):
            return False
    tolerance = PACKING_TOLERANCE if vlm.dtype == torch.float32 else 2.0**-5
    return bool((got[0] - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max())))


def decoder_arguments(vlm: VideoVlm, seq: Sequences, n_edits: int, layer: int) -> dict[str, Any]:
    """The decoder's arguments for edited copies of sequences, besides their hidden states.

    Args:
        vlm: the model.
        seq: the sequences.
        n_edits: copies of them.
        layer: the first layer that is still to add its DeepStack features.
    """
    repeats = [1] * (seq.position_ids.ndim - 2) + [n_edits, 1]
    n_rows = n_edits * len(seq.hidden)
    return vlm.decoder_kwargs(
        position_ids=seq.position_ids.repeat(repeats),
        visual_positions=seq.visual_positions,
        layer=layer,
        # Made for every pass: if it were kept, it would take more memory than the residuals.
        allowed=visible(seq.question[0]) if seq.packed else None,
        blocks=seq.blocks,
        deepstack=None if seq.deep is None else seq.deep[:, None].expand(-1, n_rows, -1, -1),
    )
