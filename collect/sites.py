"""Hook sites of a decoder: their names, reading them with an early exit, and running on after one.

A site names one place in the residual stream: `projector` (the visual tokens as they enter the decoder), `resid_pre/i`
(the input of decoder layer i) and `resid/i` (its output). The last layer's output is taken before the final norm.
Nothing here knows a model family: a decoder is any transformers text model with `.layers`.
"""

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from collect.errors import UserError

SiteKind = Literal["projector", "resid_pre", "resid"]


@dataclass(frozen=True, kw_only=True)
class Site:
    """One hook site."""

    kind: SiteKind
    layer: int
    """Decoder layer; 0 for the projector, whose output is what layer 0 reads."""

    @property
    def name(self) -> str:
        """The name that a user types, such as `resid/12`."""
        return self.kind if self.kind == "projector" else f"{self.kind}/{self.layer}"

    @property
    def layers_before(self) -> int:
        """Number of decoder layers whose work the site already holds."""
        return self.layer + 1 if self.kind == "resid" else self.layer

    @property
    def order(self) -> tuple[int, bool]:
        """Sorts sites by when a forward pass reaches them."""
        return self.layer, self.kind == "resid"


def site_names(n_layers: int) -> tuple[str, ...]:
    """Every site of a decoder with `n_layers` layers, in the order in which a forward pass reaches them."""
    per_layer = (name for i in range(n_layers) for name in (f"resid_pre/{i}", f"resid/{i}"))
    return ("projector", *per_layer)


def parse_site(name: str, n_layers: int) -> Site:
    """Read a site's name.

    Raises:
        UserError: there is no such site in a decoder with `n_layers` layers.
    """
    match = re.fullmatch(r"(projector)|(resid_pre|resid)/(0|[1-9]\d*)", name)
    if match and match[1]:
        return Site(kind="projector", layer=0)
    if match and int(match[3]) < n_layers:
        return Site(kind=cast("SiteKind", match[2]), layer=int(match[3]))
    raise UserError(
        f"There is no site {name!r} in this model: choose `projector`, or `resid_pre/i` or `resid/i` "
        f"with i from 0 to {n_layers - 1}."
    )


class _Stop(Exception):
    """Ends a forward pass at the last site that is read."""


@contextmanager
def read_sites(decoder: nn.Module, sites: Sequence[Site]) -> Generator[dict[str, Tensor]]:
    """Within the block, a forward pass of the decoder stops after the last site and fills the dictionary it yields.

    The dictionary maps site names to hidden states [batch, token, d_model]. The pass ends by an exception that the
    block swallows, so that statements after the forward call in the block do not run.
    """
    layers = cast("Sequence[nn.Module]", decoder.layers)
    last = max(sites, key=lambda site: site.order)
    found: dict[str, Tensor] = {}

    def keep(site: Site, hidden: Tensor) -> None:
        found[site.name] = hidden
        if site is last:
            raise _Stop

    def before(site: Site) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            keep(site, args[0] if args else kwargs["hidden_states"])

        return hook

    def after(site: Site) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            keep(site, output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [
        layers[site.layer].register_forward_hook(after(site))
        if site.kind == "resid"
        else layers[site.layer].register_forward_pre_hook(before(site), with_kwargs=True)
        for site in sorted(sites, key=lambda site: site.order)
    ]
    try:
        yield found
    except _Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()


class _PassOn(nn.Module):
    """Stands in for a decoder layer that has already been run."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states


@contextmanager
def without_first_layers(decoder: nn.Module, n: int) -> Generator[None]:
    """Within the block, the decoder's first `n` layers pass their input on, so that a pass resumes after them.

    The layers keep their places, because decoders look up masks and windows by a layer's index.
    """
    layers = cast("nn.ModuleList", decoder.layers)
    decoder.layers = nn.ModuleList([*(_PassOn() for _ in range(n)), *layers[n:]])
    try:
        yield
    finally:
        decoder.layers = layers


def resume(decoder: nn.Module, site: Site, hidden: Tensor, **kwargs: Any) -> Tensor:
    """Run a decoder on from the hidden states at a site to its final norm: [batch, token, d_model] in and out."""
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
