"""Hook sites of a VLM: their names, reading them with an early exit, and resuming after one.

A site names one place in a forward pass, in the order in which the pass reaches them:

- `vision/i`: the output of layer i of the vision tower, whose tokens are patches before the projector merges them;
- `projector`: the visual tokens as they enter the decoder;
- `resid_pre/i`, `resid/i`: the residual stream before and after decoder layer i (the last one before the final norm);
- `attn_out/i`, `mlp_out/i`: what the attention and the MLP of decoder layer i add to the residual stream, so that
  `resid_pre/i + attn_out/i + mlp_out/i = resid/i`.

Nothing here knows a model family: a decoder is any transformers text model with `.layers`.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from collect.errors import UserError

SiteKind = Literal["vision", "projector", "resid_pre", "attn_out", "mlp_out", "resid"]
DECODER_KINDS: tuple[SiteKind, ...] = ("resid_pre", "attn_out", "mlp_out", "resid")
"""Kinds of sites that every decoder layer has, in the order in which a pass reaches them."""
RANKS: Mapping[SiteKind, int] = {
    "vision": 0,
    "projector": 1,
    "resid_pre": 2,
    "attn_out": 3,
    "mlp_out": 4,
    "resid": 5,
}


@dataclass(frozen=True, kw_only=True)
class Site:
    """One hook site."""

    kind: SiteKind
    layer: int
    """Layer of the decoder, or of the vision tower; 0 for the projector, whose output is what decoder layer 0 reads."""

    @property
    def name(self) -> str:
        """The name that a user types, such as `resid/12`."""
        return self.kind if self.kind == "projector" else f"{self.kind}/{self.layer}"

    @property
    def layers_before(self) -> int:
        """Number of decoder layers whose work the site already holds."""
        return self.layer + 1 if self.kind == "resid" else 0 if self.kind == "vision" else self.layer

    @property
    def is_residual(self) -> bool:
        """Whether the site holds the whole residual stream, so that the decoder can be resumed there."""
        return self.kind in ("projector", "resid_pre", "resid")

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts sites by when a forward pass reaches them."""
        return int(self.kind != "vision"), self.layer, RANKS[self.kind]


def site_names(n_layers: int, n_vision_layers: int = 0) -> tuple[str, ...]:
    """Every site of a model, in the order in which a forward pass reaches them."""
    vision = (f"vision/{i}" for i in range(n_vision_layers))
    return (*vision, "projector", *(f"{kind}/{i}" for i in range(n_layers) for kind in DECODER_KINDS))


def parse_site(name: str, n_layers: int, n_vision_layers: int = 0) -> Site:
    """Read a site's name.

    Raises:
        UserError: there is no such site in a model with this many layers.
    """
    match = re.fullmatch(r"(projector)|(resid_pre|attn_out|mlp_out|resid|vision)/(0|[1-9]\d*)", name)
    if match and match[1]:
        return Site(kind="projector", layer=0)
    if match and int(match[3]) < (n_vision_layers if match[2] == "vision" else n_layers):
        return Site(kind=cast("SiteKind", match[2]), layer=int(match[3]))
    vision = f", or `vision/i` with i from 0 to {n_vision_layers - 1}" if n_vision_layers else ""
    raise UserError(
        f"There is no site {name!r} in this model: choose `projector`, or `resid_pre/i` or `resid/i` "
        f"(or `attn_out/i` or `mlp_out/i`) with i from 0 to {n_layers - 1}{vision}."
    )


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where in a module tree a site is read."""

    name: str
    module: nn.Module
    is_input: bool = False
    """Read what the module is given instead of what it returns."""


class _Stop(Exception):
    """Ends a forward pass at the last site that is read."""


@contextmanager
def read_points(points: Sequence[Point], *, stop: bool = True) -> Generator[dict[str, Tensor]]:
    """Within the block, a forward pass fills the dictionary that is yielded: names of points -> hidden states.

    Args:
        points: what to read, in the order in which the pass reaches them.
        stop: end the pass at the last point, by an exception that the block swallows, so that statements after the
            forward call in the block do not run.
    """
    found: dict[str, Tensor] = {}

    def keep(point: Point, hidden: Tensor) -> None:
        found[point.name] = hidden
        if stop and point is points[-1]:
            raise _Stop

    def before(point: Point) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            keep(point, args[0] if args else kwargs["hidden_states"])

        return hook

    def after(point: Point) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            keep(point, output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [
        point.module.register_forward_pre_hook(before(point), with_kwargs=True)
        if point.is_input
        else point.module.register_forward_hook(after(point))
        for point in points
    ]
    try:
        yield found
    except _Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()


def read_sites(
    decoder: nn.Module, sites: Sequence[Site], *, stop: bool = True
) -> AbstractContextManager[dict[str, Tensor]]:
    """Within the block, a forward pass of the decoder stops after the last site and fills the dictionary it yields.

    The dictionary maps site names to hidden states [batch, token, d_model]; see `read_points`.
    """
    layers = cast("nn.ModuleList", decoder.layers)
    return read_points([_point(layers, site) for site in sorted(sites, key=lambda site: site.order)], stop=stop)


def _point(layers: nn.ModuleList, site: Site) -> Point:
    layer = layers[site.layer]
    if site.kind in ("projector", "resid_pre"):
        return Point(name=site.name, module=layer, is_input=True)
    if site.kind == "resid":
        return Point(name=site.name, module=layer)
    assert site.kind != "vision", "the decoder has no vision layers"
    return Point(name=site.name, module=_sublayer(layer, site.kind))


def _sublayer(layer: nn.Module, kind: Literal["attn_out", "mlp_out"]) -> nn.Module:
    """Module of a decoder layer whose output is added to the residual stream."""
    # Gemma normalises the output of a sublayer once more before adding it.
    is_normed_after = hasattr(layer, "post_feedforward_layernorm")
    names = {
        "attn_out": ("post_attention_layernorm",) if is_normed_after else ("self_attn", "attention"),
        "mlp_out": ("post_feedforward_layernorm",) if is_normed_after else ("mlp", "feed_forward"),
    }[kind]
    for name in names:
        if isinstance(module := getattr(layer, name, None), nn.Module):
            return module
    raise UserError(
        f"The layers of this model have no {' or '.join(names)}: collect `resid_pre/i` or `resid/i` instead."
    )


class _PassOn(nn.Module):
    """Stands in for a decoder layer that has already been run."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states


@contextmanager
def without_first_layers(decoder: nn.Module, n: int) -> Generator[None]:
    """Within the block, the decoder's first `n` layers return their input unchanged, so that a pass resumes after them.

    The layers keep their places, because decoders look up masks and windows by a layer's index.
    """
    layers = cast("nn.ModuleList", decoder.layers)
    decoder.layers = nn.ModuleList([*(_PassOn() for _ in range(n)), *layers[n:]])
    try:
        yield
    finally:
        decoder.layers = layers


def resume(decoder: nn.Module, site: Site, hidden: Tensor, **kwargs: Any) -> Tensor:
    """Run a decoder from the hidden states at a site to its final norm: [batch, token, d_model] in and out."""
    assert site.is_residual, f"{site.name} does not hold the residual stream"
    with without_first_layers(decoder, site.layers_before):
        output = decoder(inputs_embeds=hidden, use_cache=False, **kwargs)
    return cast("Tensor", output.last_hidden_state)


def stop_at(decoder: nn.Module, sites: Sequence[Site], embeds: Tensor, **kwargs: Any) -> dict[str, Tensor]:
    """Run a decoder from its input embeddings to the last of `sites`, and no further.

    Returns:
        Site name -> hidden states [batch, token, d_model].
    """
    with read_sites(decoder, sites) as found:
        decoder(inputs_embeds=embeds, use_cache=False, **kwargs)
    missing = [site.name for site in sites if site.name not in found]
    assert not missing, f"the forward pass did not reach {missing}"
    return {site.name: found[site.name] for site in sites}


def model_device(model: nn.Module) -> torch.device:
    """Device that a model's inputs go to."""
    return next(model.parameters()).device
