"""A trained SAE: read from its SAELens folder, encode, decode. Needs torch and safetensors, never sae_lens.

Reads the two SAELens architectures that `export` writes: `topk`, and `jumprelu` for BatchTopK. Normalisation is folded
into the weights, so an SAE takes and gives back raw residuals.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from collect.errors import UserError
from train_sae.tensor_file import load_tensors

CFG_NAME = "cfg.json"
WEIGHTS_NAME = "sae_weights.safetensors"

InferenceArchitecture = Literal["topk", "jumprelu"]

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
    """Active latents a token: exactly (topk) or on average over the training tokens (jumprelu)."""
    W_enc: Float[Tensor, "d_in d_sae"]
    W_dec: Float[Tensor, "d_sae d_in"]
    b_enc: Float[Tensor, " d_sae"]
    b_dec: Float[Tensor, " d_in"]
    threshold: Float[Tensor, " d_sae"]
    """A jumprelu latent is active where its pre-activation is above this; zero for topk."""
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
        names = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_sae"]:
        """Latent activations of raw residuals, dense; `encode_sparse` needs far less memory.

        Args:
            x: raw residuals, of any floating type and on any device.
        """
        pre = (x.to(self.W_enc) - self.b_dec) @ self.W_enc + self.b_enc
        if self.architecture == "jumprelu":
            return pre.relu() * (pre > self.threshold)
        values, latents = pre.topk(self.k, dim=1, sorted=False)
        return torch.zeros_like(pre).scatter_(1, latents, values.relu())

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
        return f @ self.W_dec + self.b_dec

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
        raise UserError(f"{path} describes a {architecture} SAE, but only topk and jumprelu can be read: {_REMEDY}.")
    for key, expected in (
        ("apply_b_dec_to_input", True),
        ("normalize_activations", "none"),
        ("reshape_activations", "none"),
        ("rescale_acts_by_decoder_norm", False),
    ):
        if cfg.get(key, expected) != expected:
            raise UserError(f"{path} has {key} = {cfg[key]!r} where only {expected!r} can be read: {_REMEDY}.")
    metadata = cfg.get("metadata")
    metadata = cast("dict[str, Any]", metadata) if isinstance(metadata, dict) else {}
    k = cfg.get("k") if architecture == "topk" else metadata.get("k")
    if not isinstance(k, int):
        raise UserError(f"{path} does not say how many latents are active (k): {_REMEDY}.")

    weights_path = folder / WEIGHTS_NAME
    tensors, _ = load_tensors(weights_path, _REMEDY)
    d_in, d_sae = cfg.get("d_in"), cfg.get("d_sae")
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    if architecture == "jumprelu":
        shapes["threshold"] = (d_sae,)
    for name, shape in shapes.items():
        found = tuple(tensors[name].shape) if name in tensors else "none"
        if found != shape:
            raise UserError(f"{weights_path} has {name} of shape {found} where {shape} is needed: {_REMEDY}.")
    return Sae(
        architecture=cast("InferenceArchitecture", architecture),
        k=k,
        **{name: tensors[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")},
        threshold=tensors.get("threshold", torch.zeros_like(tensors["b_enc"])),
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
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist: run `video-sae train` first, or name another SAE.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): {_REMEDY}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object: {_REMEDY}.")
    return cast("dict[str, Any]", content)
