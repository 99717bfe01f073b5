"""Leaves out of a pass over packed questions what nobody reads.

Only the last token of each question is read, so the last layer needs queries and feed-forward at these tokens alone;
and the prefix sees nothing behind it, so its attention takes the causal kernel instead of a mask, or, where a pass
begins within the prefix, runs block by block over what a block sees. Neither changes a number beyond rounding. They
are taken where a model calls PyTorch's attention with the mask that it was given, and a model that computes its
attention otherwise is run as it is: `ask.packing.packing_agrees` compares either with plain passes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

FEED_FORWARD = ("mlp", "feed_forward")
"""What layers call it."""
ATTENTION, PROJECTIONS = ("self_attn", "attention"), ("q_proj", "o_proj")
"""What layers call their attention, and attention its projections of one token by itself but for keys and values."""
BLOCK = 128
"""Queries that attend together where a pass begins within the prefix."""


@contextmanager
def without_unread(decoder: nn.Module, n_prefix: int, read: Int[Tensor, " read"], n_before: int = 0) -> Generator[None]:
    """Within the block, the decoder's output holds only at the tokens that are read; elsewhere it is arbitrary.

    Args:
        decoder: the text model, with `.layers`.
        n_prefix: tokens of the pass before the first question.
        read: columns that are read, the same in every row, counted from the first token of the pass.
        n_before: tokens before the first one of the pass, whose keys and values it is given.
    """
    layer = cast("nn.ModuleList", decoder.layers)[-1]
    attention = _Attention(n_prefix, read, n_before)
    handles = [layer.register_forward_pre_hook(attention.begin), layer.register_forward_hook(attention.end)]
    found = [getattr(layer, name, None) for name in FEED_FORWARD]
    found += [getattr(getattr(layer, name, None), of, None) for name in ATTENTION for of in PROJECTIONS]
    for module in found:
        if isinstance(module, nn.Module):
            narrowed = _Narrowed(read)
            handles.append(module.register_forward_pre_hook(narrowed.before))
            handles.append(module.register_forward_hook(narrowed.after))
    try:
        with attention:
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Narrowed:
    """Hooks that run a module which treats each token by itself at some tokens only, and give zeros elsewhere."""

    def __init__(self, read: Tensor) -> None:
        self._read = read
        self._like: Tensor | None = None

    def before(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        self._like = None
        if not args or not isinstance(args[0], Tensor) or args[0].ndim != 3:
            return None
        self._like = args[0]
        return (args[0][:, self._read], *args[1:])

    def after(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if self._like is None:
            return None
        if isinstance(output, tuple):
            return (self._spread(output[0]), *output[1:])
        return self._spread(output)

    def _spread(self, narrow: Tensor) -> Tensor:
        assert self._like is not None
        return torch.zeros_like(self._like, dtype=narrow.dtype).index_copy(1, self._read, narrow)


class _Attention(TorchFunctionMode):
    """Splits attention into the prefix, which is causal, and the questions behind it."""

    def __init__(self, n_prefix: int, read: Tensor, n_before: int) -> None:
        super().__init__()
        self._n = n_prefix
        self._n_before = n_before
        self._read = read
        self._is_last = False
        self._causal: dict[tuple[int, ...], bool] = {}

    def begin(self, *_: Any) -> None:
        self._is_last = True

    def end(self, *_: Any) -> None:
        self._is_last = False

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
        mask = given.get("attn_mask")
        if func is not torch.nn.functional.scaled_dot_product_attention or len(args) != 3:
            return func(*args, **given)
        if not isinstance(mask, Tensor) or not _is_full(args[0], args[1], mask):
            return func(*args, **given)
        query, key, value = args
        rest = {name: each for name, each in given.items() if name not in ("attn_mask", "is_causal")}
        if self._is_last:
            some = func(query[:, :, self._read], key, value, attn_mask=mask[:, :, self._read], **rest)
            return query.new_zeros((*query.shape[:3], some.shape[-1])).index_copy(2, self._read, some)
        n = self._n
        if n == 0 or not self._is_causal(mask):
            return func(*args, **given)
        if self._n_before == 0:
            parts = [func(query[:, :, :n], key[:, :, :n], value[:, :, :n], is_causal=True, **rest)]
        else:
            parts: list[Tensor] = []
            for start in range(0, n, BLOCK):
                own = slice(start, min(start + BLOCK, n))
                seen = slice(self._n_before + own.stop)
                some = (query[:, :, own], key[:, :, seen], value[:, :, seen])
                parts.append(func(*some, attn_mask=mask[:, :, own, seen], **rest))
        parts.append(func(query[:, :, n:], key, value, attn_mask=mask[:, :, n:], **rest))
        return torch.cat(parts, dim=2)

    def _is_causal(self, mask: Tensor) -> bool:
        """Whether the mask lets each token of the prefix see exactly itself and those before it; looked at once."""
        name = (mask.data_ptr(), *mask.shape, *mask.stride())
        if name not in self._causal:
            n_seen = self._n_before + self._n
            block = mask[:, :, : self._n, :n_seen]
            allowed = block if block.dtype == torch.bool else block == 0
            plain = torch.ones(self._n, n_seen, dtype=torch.bool, device=mask.device).tril(self._n_before)
            self._causal[name] = bool((allowed == plain).all())
        return self._causal[name]


def _is_full(query: Tensor, key: Tensor, mask: Tensor) -> bool:
    """Whether a mask says of every token of a pass what it sees."""
    return mask.ndim == 4 and mask.shape[-2] == query.shape[-2] and mask.shape[-1] == key.shape[-2]
