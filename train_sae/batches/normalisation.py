"""Normalisation of activations: measured on the train videos, folded into the weights at export.

The trainer sees one of three: the raw activations; `scale * x`, with the scale chosen so that the expected norm is
sqrt(d_in), and learning rates and losses mean the same for every model and site; or the whitened activations
`(x − mean) @ matrix`, whose covariance is the identity. The exported SAE always takes the raw residual.

**Sink tokens.** In some models, a few tokens of the residual stream have a hundred times the usual norm (attention
sinks, often the first position). One such token outweighs ten thousand others in a squared error, raises the mean norm,
and takes latents for itself. `max_norm` shortens such tokens in training to this many times the median norm, keeping
their direction; the loader can leave them out altogether. The exported SAE does not shorten tokens: it sees sink tokens
at full length, for which it was not trained, so leave them out when you draw conclusions from latents.

Source: Anthropic, circuits update of April 2024 (expected norm; `expected_average_only_in` in SAELens); Saraswatula and
Klindt 2025, "Data whitening improves sparse autoencoder learning" (PCA whitening; `covariance_whitening` in SAELens).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from collect.errors import UserError
from train_sae.options import NormalizeActivations, SaeOptions
from train_sae.step.architectures import Weights


@dataclass(frozen=True)
class Normalisation:
    """What the trainer does to its input."""

    scale: float
    """The normalised input is this many times the raw one; 1 if it is whitened."""
    mean: Float[Tensor, " d_in"]
    """Mean of the raw input, float64."""
    kind: NormalizeActivations = "expected_average_only_in"
    max_norm: float | None = None
    """Longer raw tokens are shortened to this norm."""
    matrix: Float[Tensor, "d_in d_in"] | None = None
    """Whitened activations are `(x − mean) @ matrix`; float64."""
    inverse: Float[Tensor, "d_in d_in"] | None = None
    """Inverse of `matrix`, float64."""

    @property
    def center(self) -> Float[Tensor, " d_in"]:
        """The mean of the normalised input, float64: a good decoder bias to start from."""
        return torch.zeros_like(self.mean) if self.matrix is not None else self.mean * self.scale

    def apply(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_in"]:
        """Normalise raw activations, in float32 on their device; nothing waits for the device.

        Args:
            x: raw activations of any floating type. Whitening is fast if this normalisation is on the same device.
        """
        x = x.float()
        if self.max_norm is not None:
            x = x * (self.max_norm / x.norm(dim=1, keepdim=True)).clamp(max=1.0)
        if self.matrix is not None:
            return (x - self.mean.to(x)) @ self.matrix.to(x)
        return x * self.scale if self.scale != 1 else x

    def to(self, device: torch.device | str) -> "Normalisation":
        """The same on a device, so that whitening there needs no copy."""
        moved = {name: tensor.to(device) for name, tensor in self._present().items()}
        return replace(self, **moved)

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the kind, by name, for a checkpoint."""
        numbers = {"scale": self.scale, "max_norm": self.max_norm}
        scalars = {name: torch.tensor(v, dtype=torch.float64) for name, v in numbers.items() if v is not None}
        return {f"normalisation.{name}": tensor for name, tensor in {**self._present(), **scalars}.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], kind: str) -> "Normalisation":
        """Rebuild from what `tensors` gave, on the CPU, and the kind; other names are ignored.

        Raises:
            KeyError: a tensor is missing.
        """
        prefix = "normalisation."
        found = {name.removeprefix(prefix): t.cpu() for name, t in tensors.items() if name.startswith(prefix)}
        return cls(
            scale=float(found["scale"]),
            mean=found["mean"],
            kind=cast("NormalizeActivations", kind),
            max_norm=float(found["max_norm"]) if "max_norm" in found else None,
            matrix=found.get("matrix"),
            inverse=found.get("inverse"),
        )

    def _present(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def measure(chunks: Iterable[Float[Tensor, "_ d_in"]], options: SaeOptions | None = None) -> Normalisation:
    """Measure what a normalisation needs on raw activations, in float64.

    Args:
        chunks: raw activations of train videos in random order. If `max_norm` is set, the median norm is that of the
            first chunk.
        options: which normalisation, and `max_norm` in units of the median norm.

    Raises:
        UserError: the activations are all zero or not finite, so they have no scale.
    """
    options = options or SaeOptions()
    whiten = options.normalize_activations.startswith("covariance_whitening")
    n, total, norms, squares, max_norm = 0, torch.zeros(()), torch.zeros(()), torch.zeros(()), None
    for chunk in chunks:
        rows = chunk.double().cpu()
        lengths = rows.norm(dim=1)
        if options.max_norm is not None:
            max_norm = max_norm or options.max_norm * float(lengths.median())
            rows *= (max_norm / lengths).clamp(max=1.0).unsqueeze(1)
            lengths = lengths.clamp(max=max_norm)
        n += rows.shape[0]
        total = total + rows.sum(0)
        norms = norms + lengths.sum()
        if whiten:
            squares = squares + rows.T @ rows
    assert n, "there is at least one train token"
    mean_norm = float(norms) / n
    if not 0 < mean_norm < float("inf"):
        raise UserError(
            f"The activations have the mean norm {mean_norm}, so nothing can be learnt from them: "
            "collect them again, and with --dtype float32 if they overflowed."
        )
    mean, kind = total / n, options.normalize_activations
    if kind == "none":
        return Normalisation(1.0, mean, kind, max_norm)
    if not whiten:
        return Normalisation(mean.shape[0] ** 0.5 / mean_norm, mean, kind, max_norm)
    matrix, inverse = _whitening(squares / n - mean.outer(mean), options)
    return Normalisation(1.0, mean, kind, max_norm, matrix, inverse)


def _whitening(
    covariance: Float[Tensor, "d_in d_in"], options: SaeOptions
) -> tuple[Float[Tensor, "d_in d_in"], Float[Tensor, "d_in d_in"]]:
    """The matrix that whitens, and its inverse.

    SAELens adds an absolute number to the eigenvalues; here it is relative to their mean, since residual streams of
    different models differ in scale by orders of magnitude.
    """
    values, vectors = torch.linalg.eigh(covariance)
    roots = (values.clamp(min=0) + options.whitening_epsilon * values.clamp(min=0).mean()).sqrt()
    back = (
        vectors.T if options.normalize_activations == "covariance_whitening_zca" else torch.eye(len(values)).to(values)
    )
    return (vectors / roots) @ back, back.T @ (roots.unsqueeze(1) * vectors.T)


def fold(weights: Weights, normalisation: Normalisation) -> Weights:
    """Rewrite weights that expect the normalised input so that they take and reconstruct the raw one, in float64.

    The latent activations stay the same, but the decoder directions lose their unit norm. Tied weights (matching
    pursuit) keep it, since that encoder needs it; their latent activations are then those of the raw input.

    Raises:
        UserError: the weights are tied and the input is whitened.
    """
    tied = weights.enc is weights.dec
    weights = replace(weights, **{name: t.detach().double().cpu() for name, t in _named(weights).items()})
    if normalisation.matrix is None:
        scale = normalisation.scale
        if tied:
            return replace(weights, enc=weights.dec, b_dec=weights.b_dec / scale)
        return replace(weights, enc=weights.enc * scale, dec=weights.dec / scale, b_dec=weights.b_dec / scale)
    if tied:
        raise UserError(
            "A matching-pursuit SAE of whitened activations cannot be written, since its encoder is its decoder: "
            "train it with normalize_activations=expected_average_only_in."
        )
    assert normalisation.inverse is not None, "a whitening has its inverse"
    return replace(
        weights,
        enc=weights.enc @ normalisation.matrix.cpu().T,
        dec=weights.dec @ normalisation.inverse.cpu(),
        b_dec=weights.b_dec @ normalisation.inverse.cpu() + normalisation.mean.cpu(),
    )


def _named(weights: Weights) -> dict[str, Tensor]:
    values = {field.name: getattr(weights, field.name) for field in fields(weights)}
    return {name: value for name, value in values.items() if value is not None}
