"""Attention cut between tokens, or kept as it was: what a pass may read, layer by layer.

Works where a model calls PyTorch's scaled dot-product attention once per layer, which `ran_layers` of a pass tells.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ask.packing import Asked, Sequences, read_letters, run_on
from ask.unread import without_unread
from collect.errors import UserError
from collect.printable import printable


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """Tokens that may not be read, and by which tokens, in some layers."""

    queries: Bool[Tensor, " token"]
    keys: Bool[Tensor, " token"]
    layers: Collection[int]
    """Numbers of the layers after the site, from 0."""

    @property
    def pairs(self) -> Bool[Tensor, "token token"]:
        """Query by key; a token may always read itself."""
        blocked = self.queries[:, None] & self.keys[None, :]
        return blocked & ~torch.eye(len(blocked), dtype=torch.bool, device=blocked.device)


@dataclass(eq=False)
class Kept:
    """Queries and keys of an earlier pass, which decide where attention goes."""

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class AttentionEdits(TorchFunctionMode):
    """Within the block, attention obeys cuts, and is recorded or kept as recorded."""

    def __init__(self, cuts: Sequence[Cut] = (), *, record: Kept | None = None, keep: Kept | None = None) -> None:
        """Take what to change.

        Args:
            cuts: what may not be read.
            record: is filled with the queries and keys of every layer.
            keep: attention goes where these queries and keys send it; only values are those of this pass.
        """
        super().__init__()
        self._cuts = tuple(cuts)
        self._record = record
        self._keep = keep
        self.ran_layers = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Answer every call to PyTorch within the block; only attention is changed."""
        del types
        given = dict(kwargs or {})
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **given)
        layer, self.ran_layers = self.ran_layers, self.ran_layers + 1
        query, key, value, *rest = args
        if rest:
            given["attn_mask"] = rest[0]
        if self._record is not None:
            self._record.layers.append((query, key))
        if self._keep is not None:
            query, key = (each.expand(len(value), *each.shape[1:]) for each in self._keep.layers[layer])
        blocked = [cut.pairs for cut in self._cuts if layer in cut.layers]
        if blocked:
            given["attn_mask"] = _masked(given.get("attn_mask"), torch.stack(blocked).any(dim=0), query, given)
            given["is_causal"] = False
        return func(query, key, value, **given)


def _masked(
    mask: Tensor | None, blocked: Bool[Tensor, "token token"], query: Tensor, given: Mapping[str, Any]
) -> Tensor:
    """A call's mask with some pairs taken out."""
    if mask is None:
        allowed = torch.ones_like(blocked)
        mask = (allowed.tril() if given.get("is_causal") else allowed)[None, None]
    assert mask.shape[-2:] == blocked.shape, f"attention over {query.shape[-2]} tokens, not {len(blocked)}"
    return mask & ~blocked if mask.dtype == torch.bool else mask.masked_fill(blocked, float("-inf"))


def logits_under(
    model: Asked, seq: Sequences, hidden: Float[Tensor, "rows token d_model"], edits: AttentionEdits
) -> tuple[Float[Tensor, "edit question letter"], Float[Tensor, "edit question"]]:
    """Run on from the site and read every question while attention is edited; of packed ones what is read alone is run.

    Raises:
        UserError: the model does not compute its attention where it can be edited.
    """
    narrowed = without_unread(model.vlm.decoder, seq.n_prefix, seq.last) if seq.packed else nullcontext()
    with torch.no_grad(), narrowed, edits:
        out = run_on(model, seq, hidden)
    left = model.vlm.n_layers - model.vlm.resumable(model.site).layers_before
    if edits.ran_layers != left:
        raise UserError(
            f"{printable(model.vlm.name)} calls PyTorch's attention {edits.ran_layers} times in {left} layers, so that "
            "it cannot be cut: collect with --attn-implementation sdpa, or leave flow out of --analyses."
        )
    return read_letters(model, seq, out)


def require_attention(model: Asked, seq: Sequences) -> None:
    """Check before anything is run that the attention of this model can be edited.

    Raises:
        UserError: it cannot.
    """
    logits_under(model, seq, seq.hidden, AttentionEdits())
