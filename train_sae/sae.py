"""A trained SAE: read from its SAELens folder, encode, decode. Needs torch and safetensors, never sae_lens.

Reads the SAELens architectures that `export` writes: `topk`, `jumprelu` (BatchTopK and Matryoshka too), `gated`,
`standard` and `matching_pursuit`. Normalisation is folded into the weights, so an SAE takes and gives back raw
residuals.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from collect.errors import UserError
from collect.json_file import read_json
from train_sae.linear import linear
from train_sae.pursuit import pursue
from train_sae.summary import check_cfg
from train_sae.tensor_file import load_tensors

CFG_NAME = "cfg.json"
WEIGHTS_NAME = "sae_weights.safetensors"

InferenceArchitecture = Literal["topk", "jumprelu", "gated", "standard", "matching_pursuit"]

_TENSORS: dict[InferenceArchitecture, tuple[str, ...]] = {
    "topk": ("W_enc", "W_dec", "b_enc", "b_dec"),
    "jumprelu": ("W_enc", "W_dec", "b_enc", "b_dec", "threshold"),
    "gated": ("W_enc", "W_dec", "b_gate", "b_mag", "r_mag", "b_dec"),
    "standard": ("W_enc", "W_dec", "b_enc", "b_dec"),
    "matching_pursuit": ("W_dec", "b_dec"),
}
"""What SAELens stores for each."""

_CHUNK_ELEMENTS = 2**24
_REMEDY = "run `video-sae train` again under another --name, or delete the folder first"


class SparseCodes(NamedTuple):
    """Latent activations as a CSR matrix, the latents of a token in rising order."""

    indices: Int[Tensor, " nnz"]
    """Latent of each entry, int32."""
    values: Float[Tensor, " nnz"]
    """Latent activation of each entry, more than zero."""
    indptr: Int[Tensor, " token_and_one"]
    """The entries of token t are those from indptr[t] up to indptr[t + 1], int64."""


@dataclass(frozen=True, kw_only=True)
class Sae:
    """A sparse autoencoder of raw residuals, in SAELens's orientation."""

    architecture: InferenceArchitecture
    k: int
    """Active latents a token: exactly (topk), at most (matching_pursuit), on average over the training tokens (jumprelu
    from BatchTopK); of no meaning for others, where it is 0 if unknown."""
    W_enc: Float[Tensor, "d_in d_sae"]
    W_dec: Float[Tensor, "d_sae d_in"]
    b_enc: Float[Tensor, " d_sae"]
    b_dec: Float[Tensor, " d_in"]
    threshold: Float[Tensor, " d_sae"]
    """A jumprelu latent is active where its pre-activation is above this; zero for others."""
    b_gate: Float[Tensor, " d_sae"] | None = None
    """Of a gated SAE: bias of the gates. `b_enc` is then the bias of the magnitudes (`b_mag` in SAELens)."""
    r_mag: Float[Tensor, " d_sae"] | None = None
    """Of a gated SAE: logarithm of the magnitudes' scale."""
    residual_threshold: float = 0.0
    """Of matching pursuit: norm of the residual at which a token is finished."""
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    """What is known about the SAE: model, site, store, training."""

    @property
    def d_in(self) -> int:
        """Width of the residual."""
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def site(self) -> str:
        """Hook site that the SAE was trained on."""
        return str(self.metadata.get("hook_name", ""))

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the activation store that the SAE was trained on."""
        return str(self.metadata.get("store_fingerprint", ""))

    @property
    def model_fingerprint(self) -> str:
        """Fingerprint of the model whose activations the SAE was trained on."""
        return str(self.metadata.get("model_fingerprint", ""))

    @property
    def decoder_norm(self) -> Float[Tensor, " d_sae"]:
        """Norm of each decoder direction: the length by which a unit of activation moves the residual."""
        return self.W_dec.norm(dim=1)

    def to(self, device: torch.device | str) -> "Sae":
        """The same SAE on a device."""
        names = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold", "b_gate", "r_mag")
        present = {name: getattr(self, name) for name in names}
        return replace(self, **{name: tensor.to(device) for name, tensor in present.items() if tensor is not None})

    def stored_tensors(self) -> dict[str, Tensor]:
        """The tensors of the SAELens folder by SAELens's names."""
        own = {"b_mag": "b_enc"}
        return {name: getattr(self, own.get(name, name)) for name in _TENSORS[self.architecture]}

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_sae"]:
        """Latent activations of raw residuals, dense; `encode_sparse` needs far less memory.

        Args:
            x: raw residuals, of any floating type and on any device.
        """
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
        """What latents of raw residuals are selected by, in topk, jumprelu and standard SAEs."""
        return linear(self._centred(x), self.W_enc.T, self.b_enc)

    def _centred(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_in"]:
        return x.to(self.W_dec) - self.b_dec

    def encode_sparse(self, x: Float[Tensor, "token d_in"]) -> SparseCodes:
        """Latent activations of raw residuals, only those above zero; dense for a bounded number of tokens at a time.

        Args:
            x: raw residuals, of any floating type and on any device.
        """
        indices, values, counts = list[Tensor](), list[Tensor](), list[Tensor]()
        for rows in x.split(max(1, _CHUNK_ELEMENTS // self.d_sae)):
            f = self.encode(rows)
            tokens, latents = f.nonzero(as_tuple=True)
            indices.append(latents.int())
            values.append(f[tokens, latents])
            counts.append(torch.bincount(tokens, minlength=rows.shape[0]))
        ends = torch.cat(counts).cumsum(0)
        return SparseCodes(torch.cat(indices), torch.cat(values), torch.cat([ends.new_zeros(1), ends]))

    def decode(self, f: Float[Tensor, "token d_sae"]) -> Float[Tensor, "token d_in"]:
        """Reconstruct raw residuals from latent activations."""
        return linear(f, self.W_dec.T, self.b_dec)

    def decode_sparse(self, codes: SparseCodes) -> Float[Tensor, "token d_in"]:
        """Reconstruct raw residuals from sparse latent activations."""
        indptr, indices = codes.indptr, codes.indices.long()
        bags = F.embedding_bag(
            indices, self.W_dec, indptr, mode="sum", per_sample_weights=codes.values, include_last_offset=True
        )
        return bags + self.b_dec


def load_sae(folder: Path) -> Sae:
    """Read an SAE from its SAELens folder.

    Raises:
        UserError: the folder holds no SAE, a damaged one, or one of another architecture or with settings that would
            have to be applied at run time.
    """
    path = folder / CFG_NAME
    cfg = _read_cfg(path)
    architecture = cfg.get("architecture")
    if architecture not in get_args(InferenceArchitecture):
        known = ", ".join(get_args(InferenceArchitecture))
        raise UserError(f"{path} describes a {architecture} SAE, but only {known} can be read: {_REMEDY}.")
    architecture = cast("InferenceArchitecture", architecture)
    for key, expected in (
        ("apply_b_dec_to_input", True),
        ("normalize_activations", "none"),
        ("reshape_activations", "none"),
        ("rescale_acts_by_decoder_norm", False),
        ("stop_on_duplicate_support", True),
    ):
        if cfg.get(key, expected) != expected:
            raise UserError(f"{path} has {key} = {cfg[key]!r} where only {expected!r} can be read: {_REMEDY}.")
    metadata = cfg.get("metadata")
    metadata = cast("dict[str, Any]", metadata) if isinstance(metadata, dict) else {}
    k = {"topk": cfg.get("k"), "matching_pursuit": cfg.get("max_iterations")}.get(architecture, metadata.get("k", 0))
    if not isinstance(k, int):
        raise UserError(f"{path} does not say how many latents are active (k): {_REMEDY}.")
    residual_threshold = cfg.get("residual_threshold", 0.0)
    if not isinstance(residual_threshold, int | float):
        raise UserError(f"{path} has residual_threshold = {residual_threshold!r}, which is no number: {_REMEDY}.")

    weights_path = folder / WEIGHTS_NAME
    tensors, _ = load_tensors(weights_path, _REMEDY)
    d_in, d_sae = cfg.get("d_in"), cfg.get("d_sae")
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    for name in _TENSORS[architecture]:
        shape = shapes.get(name, (d_sae,))
        found = tuple(tensors[name].shape) if name in tensors else "none"
        if found != shape:
            raise UserError(f"{weights_path} has {name} of shape {found} where {shape} is needed: {_REMEDY}.")
    W_dec = tensors["W_dec"]
    zeros = W_dec.new_zeros(W_dec.shape[0])
    return Sae(
        architecture=architecture,
        k=k,
        W_enc=tensors["W_enc"] if "W_enc" in tensors else W_dec.T.contiguous(),
        W_dec=W_dec,
        b_enc=tensors.get("b_mag" if architecture == "gated" else "b_enc", zeros),
        b_dec=tensors["b_dec"],
        threshold=tensors.get("threshold", zeros),
        b_gate=tensors.get("b_gate"),
        r_mag=tensors.get("r_mag"),
        residual_threshold=float(residual_threshold),
        metadata=metadata,
    )


def find_sae(run: Path, name: str | None = None) -> Path:
    """The folder of the SAE of a run: the one of that name, or the only one.

    Raises:
        UserError: there is none, none of that name, or several and no name was given.
    """
    folders = sorted(path.parent for path in (run / "sae").glob(f"*/{CFG_NAME}"))
    names = ", ".join(folder.name for folder in folders)
    if not folders:
        raise UserError(f"{run / 'sae'} holds no SAE: run `video-sae train --run {run} --site …` first.")
    if name is None:
        if len(folders) > 1:
            raise UserError(f"{run / 'sae'} holds several SAEs ({names}): name one with --sae.")
        return folders[0]
    for folder in folders:
        if folder.name == name:
            return folder
    raise UserError(f"{run / 'sae'} holds no SAE named {name!r}: it has {names}.")


def _read_cfg(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path} does not exist: run `video-sae train` first, or name another SAE.")
    content: object = read_json(path, _REMEDY)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object: {_REMEDY}.")
    check_cfg(path)
    return cast("dict[str, Any]", content)
