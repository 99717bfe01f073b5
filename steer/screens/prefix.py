"""What a video's prefix hands to the tokens behind it, so that passes over edits need not run all of it again.

Tokens read those before them through keys and values. Those of the unedited prefix are recorded once per video, for
every layer after the site. Two kinds of passes go on from them:

- `KnownPrefix.total`: all tokens from the first edited one on are run. What the edit changes is changed everywhere;
- `KnownPrefix.direct`: only the tokens of the questions are run. They see the edit at once, and nothing else does: in
  every later layer the residual of an edited token is the unedited one plus what the edit added at the site, and its
  keys and values are made of that; no token of the prefix reads another one anew.
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ask.byte_cache import ByteCache
from ask.cases import Case, edited_logits
from ask.packing import Asked, decoder_arguments
from ask.questions import N_OPTIONS
from ask.unread import without_unread
from collect.printable import printable
from collect.vlm.keys_values import InFront, KeysValues, project, record
from collect.vlm.sites import resume

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference between logits of passes that must agree, relative to their size, in float32."""
MAX_BYTES = 2**30
"""Of the prefixes that are kept."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseChange:
    """What an edit adds to the residuals of some visual tokens."""

    token: Int[Tensor, " edited"]
    """Numbers of the visual tokens, from 0, ascending."""
    change: Float[Tensor, "edited d_model"]

    @classmethod
    def of(cls, change: Float[Tensor, "visual d_model"]) -> SparseChange:
        """What is not zero of a change of all visual tokens."""
        token = (change != 0).any(dim=1).nonzero()[:, 0]
        return cls(token=token, change=change[token])

    def dense(self, n_tokens: int) -> Float[Tensor, "visual d_model"]:
        """The change of all visual tokens."""
        whole = torch.zeros(n_tokens, self.change.shape[1], device=self.change.device, dtype=self.change.dtype)
        return whole.index_add(0, self.token, self.change)


def first_tokens(edits: Sequence[SparseChange]) -> list[int]:
    """The first visual token that each edit changes, -1 if it changes none; waits for a GPU once, not for each."""
    begun = [each.token[0] for each in edits if len(each.token)]
    found = iter(torch.stack(begun).tolist() if begun else [])
    return [next(found) if len(each.token) else -1 for each in edits]


Answers = tuple[Float[Tensor, "edit item order letter"], Float[Tensor, "edit item order"]]
"""Letter logits, and the probability of the three letters together."""


class KnownPrefix:
    """The unedited prefix of one video as the tokens behind it read it.

    Args:
        model: the model, at the site where the case's residuals were read.
        case: the video and its questions, packed behind one prefix.

    Raises:
        TypeError: the decoder takes no cache.
        RuntimeError: it does not tell a cache its keys and values.
    """

    def __init__(self, model: Asked, case: Case) -> None:
        seq = case.sequences
        assert seq.packed, "questions in rows of their own share no prefix"
        self._model, self._seq = model, seq
        self._site = model.vlm.resumable(model.site)
        self._n_prefix = seq.n_prefix
        arguments = decoder_arguments(model.vlm, seq, 1, self._site.layer)
        self._mask = arguments["attention_mask"]
        # Only the prefix of what is recorded is ever given to a pass.
        with torch.no_grad():
            inputs, self._unedited = record(model.vlm.decoder, self._site, seq.hidden, **arguments)
        self._inputs = {layer: x[0, seq.visual_positions] for layer, x in inputs.items()}

    def asked(self, case: Case) -> KnownPrefix:
        """The same prefix, in front of some of its questions only."""
        if case.sequences is self._seq:
            return self
        other = copy.copy(self)
        other._seq = case.sequences
        other._mask = decoder_arguments(self._model.vlm, case.sequences, 1, self._site.layer)["attention_mask"]
        return other

    @property
    def n_bytes(self) -> int:
        """Memory held, besides that of the case."""
        held = [*self._inputs.values(), *(each for pair in self._unedited.values() for each in pair)]
        held += list(self._mask.values()) if isinstance(self._mask, dict) else [self._mask]
        return sum(each.nbytes for each in held)

    def total(self, edits: Sequence[SparseChange]) -> Answers:
        """Answer the questions once per edit. Edits whose first tokens are close together save most."""
        seq = self._seq
        begun = [place for place in first_tokens(edits) if place >= 0]
        first = min(begun, default=len(seq.visual_positions) - 1)
        start = int(seq.visual_positions[first])
        if seq.blocks is not None:  # tokens of one block see each other in both directions
            start = int((seq.blocks == seq.blocks[start]).nonzero()[0, 0])
        hidden = seq.hidden[:, start:].repeat(len(edits), 1, 1)
        for row, each in enumerate(edits):
            hidden[row, seq.visual_positions[each.token] - start] += each.change.to(hidden.dtype)
        return self._answers(hidden, start, InFront(self._unedited, start))

    def direct(self, edits: Sequence[SparseChange]) -> Answers:
        """Answer the questions once per edit that they see, and no other token does."""
        seq, start = self._seq, self._n_prefix
        device = seq.last.device
        sizes = torch.tensor([len(each.token) for each in edits], device=device)
        row = torch.repeat_interleave(torch.arange(len(edits), device=device), sizes)
        token = torch.cat([each.token for each in edits])
        instead = self._edited(token, torch.cat([each.change for each in edits]))
        given = InFront(self._unedited, start, (row, seq.visual_positions[token]), instead)
        return self._answers(seq.hidden[:, start:].expand(len(edits), -1, -1), start, given)

    def _edited(
        self, token: Int[Tensor, " pair"], change: Float[Tensor, "pair d_model"]
    ) -> dict[int, KeysValues] | None:
        """Keys and values of visual tokens whose residual is changed and carried along unread."""
        if not len(token):
            return None
        inputs = {layer: (x[token] + change.to(x.dtype))[None] for layer, x in self._inputs.items()}
        positions = self._seq.position_ids[..., self._seq.visual_positions[token]]
        mask = _sliced(self._mask, slice(0, 1), slice(0, 1))
        with torch.no_grad():
            return project(self._model.vlm.decoder, inputs, position_ids=positions, attention_mask=mask)

    def _answers(self, hidden: Float[Tensor, "edit token d_model"], start: int, given: InFront) -> Answers:
        """Run the tokens from column `start` on, behind the given ones, and read the letters."""
        vlm, seq = self._model.vlm, self._seq
        n, read = len(hidden), seq.last - start
        behind = seq.visual_positions >= start
        arguments = vlm.decoder_kwargs(
            position_ids=seq.position_ids[..., start:].expand(*seq.position_ids.shape[:-2], n, -1),
            visual_positions=seq.visual_positions[behind] - start,
            layer=self._site.layer,
            deepstack=None if seq.deep is None else seq.deep[:, None, behind].expand(-1, n, -1, -1),
        )
        mask = _sliced(self._mask, slice(start, None), slice(None))
        with torch.no_grad(), without_unread(vlm.decoder, self._n_prefix - start, read, start):
            out = resume(
                vlm.decoder, self._site, hidden, past_key_values=given, **(arguments | {"attention_mask": mask})
            )
            logits = vlm.head(out[:, read])
        chosen = logits[..., self._model.letters]
        mass = (chosen.logsumexp(dim=-1) - logits.logsumexp(dim=-1)).exp()
        return chosen.unflatten(1, (-1, N_OPTIONS)), mass.unflatten(1, (-1, N_OPTIONS))


class Prefixes:
    """The known prefixes of a run's videos, kept while memory allows.

    Args:
        model: the model, at the site where the cases' residuals were read.
    """

    def __init__(self, model: Asked) -> None:
        self._model = model
        self._made: dict[str, KnownPrefix] = {}
        self._kept = ByteCache(lambda video_id: self._made.pop(video_id), lambda prefix: prefix.n_bytes, MAX_BYTES)
        self._agrees: bool | None = None

    def of(self, case: Case) -> KnownPrefix | None:
        """The prefix of a case's video; None where the model does not go on from one, which is tried once."""
        if self._agrees is None:
            self._agrees = agrees(self._model, case)
            if not self._agrees:
                logger.info(
                    "%s does not go on from known keys and values at %s: edits run every token, and there is no screen "
                    "by direct effects",
                    printable(self._model.vlm.name),
                    self._model.site,
                )
        if not self._agrees:
            return None
        if case.video_id not in self._kept:
            self._made[case.video_id] = KnownPrefix(self._model, case)
        return self._kept[case.video_id].asked(case)

    def answers(self, case: Case, changes: Iterable[Float[Tensor, "visual d_model"]], batch_size: int) -> Answers:
        """As `ask.cases.edited_logits`, without what comes before the first edited token of each batch."""
        prefix = self.of(case)
        if prefix is None:
            return edited_logits(self._model, case, changes, batch_size)
        remaining, found = iter(changes), list[Answers]()
        while batch := list(itertools.islice(remaining, batch_size)):
            found.append(prefix.total([SparseChange.of(each) for each in batch]))
        logits, mass = (torch.cat(each) for each in zip(*found, strict=True))
        return logits, mass


def agrees(model: Asked, case: Case) -> bool:
    """Whether passes behind a known prefix answer as whole passes do."""
    if not case.sequences.packed:
        return False
    middle = len(case.sequences.visual_positions) // 2
    token = torch.tensor([middle], device=case.logits.device)
    edit = SparseChange(token=token, change=-case.sequences.visual[token])
    nothing = SparseChange(token=token[:0], change=edit.change[:0])
    expected, _ = edited_logits(model, case, [edit.dense(len(case.sequences.visual_positions))], 1)
    try:
        prefix = KnownPrefix(model, case)
        pairs = [(prefix.total([edit])[0], expected), (prefix.direct([nothing])[0], case.logits[None])]
        prefix.direct([edit])
    except (TypeError, RuntimeError, ValueError, KeyError, AttributeError):
        return False
    tolerance = TOLERANCE if model.vlm.dtype == torch.float32 else 2.0**-5
    size = max(1.0, float(case.logits.abs().max()))
    return all(float((got - wanted).abs().max()) <= tolerance * size for got, wanted in pairs)


def _sliced(mask: Any, rows: slice, columns: slice) -> Any:
    if isinstance(mask, dict):
        return {name: each[:, :, rows, columns] for name, each in mask.items()}
    return mask[:, :, rows, columns]
