"""SAEs that have no form here are encoded by SAELens's own class, if the package is installed.

The results of SAELens are converted to the terms of `train_sae.sae`: decoder directions in units of the residual, and
what a reconstruction holds besides the latents' directions.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from collect.errors import UserError
from collect.printable import printable
from train_sae.lens.config import REMEDY, LensConfig

LENS_FORMAT = "6.54.12"
"""Version of sae_lens whose configurations are read and written; SAELens takes a configuration without it for an old
one, and then drops metadata that it does not know."""
_NOT_NEGATIVE = ("matching_pursuit", "temporal")
_PLAIN = ("abstopk", "matching_pursuit", "transcoder", "jumprelu_transcoder")


@dataclass(frozen=True, kw_only=True, eq=False)
class LensModule:
    """SAELens's object of one SAE, in float32."""

    module: Any
    W_enc: Float[Tensor, "d_in d_sae"]
    W_dec: Float[Tensor, "d_sae d_out"]
    """What a unit of activation writes, before the token's own scale."""
    b_dec: Float[Tensor, " d_out"]
    is_signed: bool
    """Whether activations may be negative."""
    is_sequential: bool
    """Whether a token's activations depend on the tokens before it."""
    is_plain: bool
    """Whether a reconstruction is f · W_dec + b_dec and nothing else."""

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_sae"]:
        """Latent activations; of a sequential SAE, the tokens are those of one video in order."""
        with torch.no_grad():
            return self._call(self.module.encode, x)

    def reconstruct(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_out"]:
        """SAELens's own reconstruction."""
        with torch.no_grad():
            return self._call(self.module, x)

    def to(self, device: torch.device | str) -> "LensModule":
        """The same on a device."""
        tensors = {name: getattr(self, name).to(device) for name in ("W_enc", "W_dec", "b_dec")}
        return replace(self, module=self.module.to(device), **tensors)

    def _call(self, function: Any, x: Tensor) -> Tensor:
        # A sequence of no tokens has no attention.
        shaped = x.unsqueeze(0) if self.is_sequential and len(x) else x
        if self.is_sequential and not len(x):
            width = self.W_dec.shape[0] if function == self.module.encode else self.W_dec.shape[1]
            return x.new_zeros(0, width)
        found = cast("Tensor", function(shaped))
        return found.squeeze(0) if self.is_sequential else found


def load_module(cfg: LensConfig, tensors: Mapping[str, Tensor]) -> LensModule:
    """Build SAELens's object from what has been read of a folder.

    Args:
        cfg: its configuration.
        tensors: its weights, in float32.

    Raises:
        UserError: SAELens is not installed, does not know the architecture, or cannot make an SAE of these weights.
    """
    registry, sae_class = _sae_lens(cfg)
    if cfg.architecture not in registry:
        raise UserError(
            f"{cfg.path} describes a {printable(cfg.architecture, 60)} SAE, which SAELens does not load for inference "
            f"either; it knows {', '.join(sorted(registry))}: {REMEDY}."
        )
    plain = {"device": "cpu", "dtype": "float32", "reshape_activations": "none"}
    metadata = {"metadata": {"sae_lens_version": LENS_FORMAT}}

    def give(*_: object, **__: object) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {**cfg.settings, **plain, **metadata}, dict(tensors)

    try:
        module = sae_class.load_from_disk(cfg.path.parent, device="cpu", dtype="float32", converter=give)
        module.requires_grad_(False)
        return _of_module(cfg, module)
    except (ValueError, TypeError, KeyError, RuntimeError, AssertionError, AttributeError) as error:
        reason = printable(" ".join(str(error).split()) or "its sizes do not go together", 200)
        raise UserError(
            f"{cfg.path.parent} is not a {cfg.architecture} SAE that SAELens can load ({reason}): {REMEDY}."
        ) from None


def _sae_lens(cfg: LensConfig) -> tuple[Mapping[str, Any], Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries that SAELens imports warn about themselves
            import sae_lens
            from sae_lens.registry import SAE_CLASS_REGISTRY
    except ImportError as error:
        raise UserError(
            f"{cfg.path} describes a {printable(cfg.architecture, 60)} SAE, which only SAELens can encode, and SAELens "
            f"cannot be imported ({printable(error, 120)}): `pip install sae-lens`, or name another SAE with --sae."
        ) from None
    return SAE_CLASS_REGISTRY, sae_lens.SAE


def _of_module(cfg: LensConfig, module: Any) -> LensModule:
    W_dec = cast("Tensor", module.W_dec).detach()
    if cfg.rescale_acts_by_decoder_norm and cfg.architecture in ("topk", "abstopk"):
        W_dec = W_dec / W_dec.norm(dim=1, keepdim=True).clamp(min=torch.finfo(W_dec.dtype).tiny)
    if cfg.normalize_activations == "constant_scalar_rescale":
        W_dec = W_dec / float(module.cfg.activation_normalization_factor)
    tied = cfg.architecture == "matching_pursuit" or (cfg.architecture == "temporal" and module.cfg.tied_weights)
    b_dec = cast("Tensor", module.b_dec).detach()
    if cfg.architecture == "matching_pursuit" and not cfg.apply_b_dec_to_input:
        b_dec = torch.zeros_like(b_dec)
    return LensModule(
        module=module,
        W_enc=module.W_dec.detach().T if tied else module.W_enc.detach(),
        W_dec=W_dec,
        b_dec=b_dec,
        is_signed=not (cfg.architecture in _NOT_NEGATIVE or cfg.architecture.endswith("transcoder")),
        is_sequential=cfg.architecture == "temporal",
        is_plain=cfg.architecture in _PLAIN and cfg.normalize_activations in _FOLDED,
    )


_FOLDED = ("none", "expected_average_only_in", "covariance_whitening")
