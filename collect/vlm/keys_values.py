"""Keys and values of a decoder's layers: recorded in one pass, projected from given inputs, and given to another pass.

Layers hand their keys and values to what they take for transformers' cache. What stands in for it here keeps them, ends
the layer there, or puts those of earlier tokens in front. So normalisation, projections and rotary positions are always
the layer's own, whatever its family.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

from jaxtyping import Float, Int
from torch import Tensor, nn

from collect.vlm.sites import Site, resume

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one layer: [row, head, token, d_head] each."""


class _End(Exception):
    """Ends a layer once its keys and values are known."""


class _Kept:
    """Keeps the keys and values of every layer, and changes nothing."""

    def __init__(self) -> None:
        self.found: dict[int, KeysValues] = {}

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> KeysValues:
        self.found[layer] = (keys, values)
        return keys, values


class _KeptAndEnded(_Kept):
    """Keeps the keys and values of a layer, and ends it."""

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> KeysValues:
        super().update(keys, values, layer)
        raise _End


class InFront:
    """Puts keys and values of earlier tokens in front of those of the tokens that are run.

    Args:
        earlier: keys and values per layer, in one row that all rows share.
        n_before: how many tokens of these are earlier ones.
        place: row and column of the earlier tokens that differ from row to row.
        instead: their keys and values per layer, in one row.
    """

    def __init__(
        self,
        earlier: Mapping[int, KeysValues],
        n_before: int,
        place: tuple[Int[Tensor, " changed"], Int[Tensor, " changed"]] | None = None,
        instead: Mapping[int, KeysValues] | None = None,
    ) -> None:
        self._earlier, self._n_before = earlier, n_before
        self._place, self._instead = place, instead

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> KeysValues:
        """What the layer's attention takes, called by the layer."""
        instead = (None, None) if self._instead is None else self._instead[layer]
        own = zip((keys, values), self._earlier[layer], instead, strict=True)
        all_keys, all_values = (self._joined(*each) for each in own)
        return all_keys, all_values

    def _joined(self, run: Tensor, earlier: Tensor, instead: Tensor | None) -> Tensor:
        n_rows, n_heads, n_run, d_head = run.shape
        found = run.new_empty(n_rows, n_heads, self._n_before + n_run, d_head)
        found[:, :, : self._n_before] = earlier[:, :, : self._n_before]
        found[:, :, self._n_before :] = run
        if self._place is not None and instead is not None:
            row, column = self._place
            found[row, :, column] = instead[0].transpose(0, 1)
        return found


def record(
    decoder: nn.Module, site: Site, hidden: Float[Tensor, "row token d_model"], **kwargs: Any
) -> tuple[dict[int, Tensor], dict[int, KeysValues]]:
    """Run a decoder on from a site, and keep what every layer after it reads.

    Args:
        decoder: the text model.
        site: where `hidden` was read.
        hidden: residuals.
        **kwargs: the decoder's other arguments, with a mask of four dimensions.

    Returns:
        Layer -> its input; layer -> its keys and values.

    Raises:
        TypeError: the decoder takes no cache.
        RuntimeError: it does not tell a cache its keys and values.
    """
    kept, inputs = _Kept(), dict[int, Tensor]()
    handles = [
        layer.register_forward_pre_hook(_keep_input(inputs, number), with_kwargs=True)
        for number, layer in _layers_after(decoder, site)
    ]
    try:
        resume(decoder, site, hidden, past_key_values=kept, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    if set(kept.found) != set(inputs):
        raise RuntimeError("the decoder's layers do not tell a cache their keys and values")
    return inputs, kept.found


def project(
    decoder: nn.Module, inputs: Mapping[int, Float[Tensor, "row token d_model"]], **kwargs: Any
) -> dict[int, KeysValues]:
    """Keys and values that layers make of given inputs; nothing else of the layers is run.

    Args:
        decoder: the text model.
        inputs: layer -> its input.
        **kwargs: the decoder's other arguments; positions are those of the tokens, and masks are not used.
    """
    kept = _KeptAndEnded()
    first = next(iter(inputs.values()))
    with _instead(decoder, {number: _Ended(layer, inputs.get(number)) for number, layer in enumerate(_list(decoder))}):
        cast("Any", decoder)(inputs_embeds=first, use_cache=False, past_key_values=kept, **kwargs)
    return kept.found


class _Ended(nn.Module):
    """Stands in for a layer, and runs it on an input of its own up to its keys and values."""

    def __init__(self, layer: nn.Module, given: Tensor | None) -> None:
        super().__init__()
        self._layer = [layer]  # in a list, so that it is no part of this module
        self._given = given

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self._given is not None:
            with suppress(_End):
                self._layer[0](self._given, *args, **kwargs)
        return hidden_states


@contextmanager
def _instead(decoder: nn.Module, layers: Mapping[int, nn.Module]) -> Generator[None]:
    own = _list(decoder)
    decoder.layers = nn.ModuleList([layers[number] for number in range(len(own))])
    try:
        yield
    finally:
        decoder.layers = own


def _list(decoder: nn.Module) -> nn.ModuleList:
    return cast("nn.ModuleList", decoder.layers)


def _layers_after(decoder: nn.Module, site: Site) -> Iterator[tuple[int, nn.Module]]:
    for number, layer in enumerate(_list(decoder)):
        if number >= site.layers_before:
            yield number, layer


def _keep_input(inputs: dict[int, Tensor], number: int) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs[number] = args[0] if args else kwargs["hidden_states"]

    return hook
