"""A trained SAE: read from its SAELens folder, encode, decode.

Five forms are encoded here, with torch and safetensors alone: `topk`, `jumprelu` (BatchTopK and Matryoshka too),
`gated`, `standard` and `matching_pursuit`. Their settings are folded into the weights (`folding`), so an SAE takes and
returns raw residuals. Everything else that SAELens can load is encoded by SAELens's own class (`lens_module`).
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from train_sae.lens.config import LensConfig, read_lens_config
from train_sae.lens.folding import TENSORS, as_form, check_shapes, fold, read_weights
from train_sae.lens.module import LensModule, load_module
from train_sae.lens.token_norm import TokenNorm, normalised, scale_and_shift
from train_sae.step.linear import linear
from train_sae.step.pursuit import pursue

InferenceArchitecture = Literal["topk", "jumprelu", "gated", "standard", "matching_pursuit"]
"""The forms that are encoded here and that `export` writes."""

_CHUNK_ELEMENTS = 2**24


class SparseActivations(NamedTuple):
    """Latent activations as a CSR matrix, the latents of a token in ascending order."""

    indices: Int[Tensor, " nnz"]
    """Latent of each entry, int32."""
    values: Float[Tensor, " nnz"]
    """Latent activation of each entry, more than zero; of a signed SAE, not zero."""
    indptr: Int[Tensor, " token_and_one"]
    """The entries of token t are those from indptr[t] up to indptr[t + 1], int64."""


@dataclass(frozen=True, kw_only=True)
class Sae:
    """A sparse autoencoder of raw residuals, in SAELens's orientation."""

    architecture: str
    """One of `InferenceArchitecture`; with `lens`, SAELens's name of it."""
    k: int
    """Active latents per token: exactly (topk), at most (matching_pursuit), on average over the training tokens
    (jumprelu from BatchTopK); without meaning for others, and 0 there if unknown."""
    W_enc: Float[Tensor, "d_in d_sae"]
    W_dec: Float[Tensor, "d_sae d_out"]
    """What a unit of activation writes; d_out is d_in except in a transcoder."""
    b_enc: Float[Tensor, " d_sae"]
    b_dec: Float[Tensor, " d_out"]
    threshold: Float[Tensor, " d_sae"]
    """A jumprelu latent is active where its pre-activation is above this; zero for others."""
    b_gate: Float[Tensor, " d_sae"] | None = None
    """Of a gated SAE: bias of the gates. `b_enc` is then the bias of the magnitudes (`b_mag` in SAELens)."""
    r_mag: Float[Tensor, " d_sae"] | None = None
    """Of a gated SAE: logarithm of the magnitudes' scale."""
    residual_threshold: float = 0.0
    """Of matching pursuit: norm of the residual at which a token is finished."""
    token_norm: TokenNorm = "none"
    """What is done to each token before it is encoded, and undone on its reconstruction."""
    lens: LensModule | None = None
    """SAELens's own object; if given, it encodes, and `W_enc` and `b_enc` are not used."""
    is_one_sided: bool = False
    """Whether each latent of a signed SAE appears here twice; see `one_sided`."""
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    """What is known about the SAE: model, site, store, training."""

    @property
    def d_in(self) -> int:
        """Width of the residual."""
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def site(self) -> str:
        """Hook site that the SAE was trained on; empty if that is not known."""
        return self._text("hook_name")

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the activation store that the SAE was trained on; empty if that is not known."""
        return self._text("store_fingerprint")

    @property
    def model_fingerprint(self) -> str:
        """Fingerprint of the model whose activations the SAE was trained on; empty if that is not known."""
        return self._text("model_fingerprint")

    @property
    def model_name(self) -> str:
        """Name of that model, as given by whoever trained the SAE; empty if that is not known."""
        return self._text("model_name")

    @property
    def is_sequential(self) -> bool:
        """Whether a token's activations depend on the tokens before it: encode whole videos in order, nothing else."""
        return self.lens is not None and self.lens.is_sequential

    @property
    def is_signed(self) -> bool:
        """Whether latent activations may be below zero."""
        return self.lens is not None and self.lens.is_signed and not self.is_one_sided

    @property
    def writes_where_it_reads(self) -> bool:
        """Whether a reconstruction belongs at the site that is read, as it does in all but transcoders."""
        out = self._text("hook_name_out")
        return not self.architecture.endswith("transcoder") or (bool(out) and out == self.site)

    @property
    def is_plain(self) -> bool:
        """Whether a reconstruction is f · W_dec + b_dec, so that it follows from the latents alone."""
        return self.token_norm == "none" and (self.lens is None or self.lens.is_plain)

    def _text(self, name: str) -> str:
        value = self.metadata.get(name)
        return value if isinstance(value, str) else ""

    @property
    def decoder_norm(self) -> Float[Tensor, " d_sae"]:
        """Norm of each decoder direction: the length by which a unit of activation moves the residual."""
        return self.W_dec.norm(dim=1)

    def to(self, device: torch.device | str) -> "Sae":
        """The same SAE on a device."""
        names = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold", "b_gate", "r_mag")
        present = {name: getattr(self, name) for name in (*names, "lens")}
        return replace(self, **{name: tensor.to(device) for name, tensor in present.items() if tensor is not None})

    def one_sided(self) -> "Sae":
        """The same SAE with no activation below zero.

        Each latent of a signed SAE becomes two: i is its activation where that is above zero, and writes W_dec[i];
            d_sae + i is minus its activation where that is below zero, and writes −W_dec[i]. Other SAEs stay as they
            are.
        """
        if not self.is_signed:
            return self
        zeros = torch.cat([self.b_enc, self.b_enc])
        return replace(
            self,
            is_one_sided=True,
            W_enc=torch.cat([self.W_enc, -self.W_enc], dim=1),
            W_dec=torch.cat([self.W_dec, -self.W_dec]),
            b_enc=zeros,
            threshold=zeros,
        )

    def stored_tensors(self) -> dict[str, Tensor]:
        """The tensors of the SAELens folder by SAELens's names."""
        own = {"b_mag": "b_enc"}
        return {name: getattr(self, own.get(name, name)) for name in TENSORS[self.architecture]}

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_sae"]:
        """Latent activations of raw residuals, dense; `encode_sparse` needs far less memory.

        Args:
            x: raw residuals, of any floating type and on any device.
        """
        if self.lens is not None:
            f = self.lens.encode(x.to(self.W_dec))
            return torch.cat([f.relu(), (-f).relu()], dim=1) if self.is_one_sided else f
        if self.architecture == "matching_pursuit":
            return pursue(self._centred(x), self.W_dec, self.residual_threshold, self.k)
        if self.b_gate is not None and self.r_mag is not None:
            product = linear(self._centred(x), self.W_enc.T)
            return (product * self.r_mag.exp() + self.b_enc).relu() * (product + self.b_gate > 0)
        pre = self.pre_activations(x)
        if self.architecture == "topk":
            values, latents = pre.topk(self.k, dim=1, sorted=False)
            return torch.zeros_like(pre).scatter_(1, latents, values.relu())
        return pre.relu() * (pre > self.threshold)

    def pre_activations(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_sae"]:
        """The values by which latents are selected for raw residuals, in topk, jumprelu and standard SAEs."""
        return linear(self._centred(x), self.W_enc.T, self.b_enc)

    def _centred(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_in"]:
        return normalised(x.to(self.W_dec), self.token_norm) - self.b_dec

    def _chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Chunks of tokens that keep dense activations small; a sequence stays whole, because it cannot be cut."""
        return (x,) if self.is_sequential else x.split(max(1, _CHUNK_ELEMENTS // self.d_sae))

    def encode_sparse(self, x: Float[Tensor, "token d_in"]) -> SparseActivations:
        """Latent activations of raw residuals without the zeros; dense for a bounded number of tokens at a time.

        Args:
            x: raw residuals, of any floating type and on any device.
        """
        indices, values, counts = list[Tensor](), list[Tensor](), list[Tensor]()
        for rows in self._chunks(x):
            f = self.encode(rows)
            tokens, latents = f.nonzero(as_tuple=True)
            indices.append(latents.int())
            values.append(f[tokens, latents])
            counts.append(torch.bincount(tokens, minlength=rows.shape[0]))
        ends = torch.cat(counts).cumsum(0)
        return SparseActivations(torch.cat(indices), torch.cat(values), torch.cat([ends.new_zeros(1), ends]))

    def decode(
        self, f: Float[Tensor, "token d_sae"], x: Float[Tensor, "token d_in"] | None = None
    ) -> Float[Tensor, "token d_out"]:
        """Reconstruct raw residuals from latent activations.

        Args:
            f: latent activations.
            x: the residuals that they came from; needed unless `is_plain`.
        """
        return linear(f, self.W_dec.T, self.b_dec) if self.is_plain else self._put_back(linear(f, self.W_dec.T), x)

    def decode_sparse(self, codes: SparseActivations, x: Float[Tensor, "token d_in"] | None = None) -> Tensor:
        """Reconstruct raw residuals from sparse latent activations; the arguments are those of `decode`."""
        indptr, indices = codes.indptr, codes.indices.long()
        bags = F.embedding_bag(
            indices, self.W_dec, indptr, mode="sum", per_sample_weights=codes.values, include_last_offset=True
        )
        return bags + self.b_dec if self.is_plain else self._put_back(bags, x)

    def reconstruct(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_out"]:
        """Encode raw residuals and decode them again.

        Args:
            x: raw residuals, of any floating type and on any device.
        """
        return self.decode_sparse(self.encode_sparse(x), x)

    def written_per_unit(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, " token"]:
        """Multiple of W_dec[i] that a unit of latent i's activation adds to the residual at each token.

        Args:
            x: raw residuals, of any floating type and on any device.
        """
        return scale_and_shift(x.to(self.W_dec), self.token_norm)[0].squeeze(1)

    def _put_back(self, product: Tensor, x: Tensor | None) -> Tensor:
        """Add what a reconstruction contains besides the latents, and undo what was done to each token."""
        assert x is not None, "the reconstruction follows from the latents and the residuals together"
        x = x.to(self.W_dec)
        if self.lens is None:
            scale, shift = scale_and_shift(x, self.token_norm)
            return (product + self.b_dec) * scale + shift
        besides = list[Tensor]()
        for rows in self._chunks(x):
            scale, _ = scale_and_shift(rows, self.token_norm)
            besides.append(self.lens.reconstruct(rows) - linear(self.encode(rows), self.W_dec.T) * scale)
        return product * scale_and_shift(x, self.token_norm)[0] + torch.cat(besides)


def load_sae(folder: Path) -> Sae:
    """Read an SAE from its SAELens folder.

    Raises:
        UserError: the folder holds no SAE, a damaged one, one with weights that are not finite, or one that neither
            this program nor SAELens can encode.
    """
    cfg = read_lens_config(folder)
    form, tensors = as_form(cfg, read_weights(folder))
    if form not in TENSORS or (form == "matching_pursuit" and not cfg.stop_on_duplicate_support):
        return _of_module(cfg, load_module(cfg, tensors))
    check_shapes(cfg, form, tensors)
    tensors = fold(cfg, form, tensors)
    W_dec = tensors["W_dec"]
    zeros = W_dec.new_zeros(W_dec.shape[0])
    return Sae(
        architecture=form,
        k=cfg.k,
        W_enc=tensors["W_enc"] if "W_enc" in tensors else W_dec.T.contiguous(),
        W_dec=W_dec,
        b_enc=tensors["b_mag" if form == "gated" else "b_enc"] if form != "matching_pursuit" else zeros,
        b_dec=tensors["b_dec"],
        threshold=tensors.get("threshold", zeros),
        b_gate=tensors.get("b_gate"),
        r_mag=tensors.get("r_mag"),
        residual_threshold=cfg.residual_threshold if form == "matching_pursuit" else 0.0,
        token_norm=cfg.token_norm,
        metadata=cfg.metadata,
    )


def _of_module(cfg: LensConfig, lens: LensModule) -> Sae:
    zeros = lens.W_dec.new_zeros(lens.W_dec.shape[0])
    return Sae(
        architecture=cfg.architecture,
        k=cfg.k,
        W_enc=lens.W_enc,
        W_dec=lens.W_dec,
        b_enc=zeros,
        b_dec=lens.b_dec,
        threshold=zeros,
        token_norm=cfg.token_norm,
        lens=lens,
        metadata=cfg.metadata,
    )
