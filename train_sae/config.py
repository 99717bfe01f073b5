"""Arguments of the `train` stage: one SAE, or a sweep of several that share one pass over the data."""

import contextlib
import dataclasses
import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from collect.arguments import require_name, require_seed
from collect.errors import UserError
from train_sae.options import Options, parse_options

Architecture = Literal[
    "topk",
    "batchtopk",
    "matryoshka_batchtopk",
    "jumprelu",
    "gated",
    "standard",
    "matching_pursuit",
    "frozen_decoder",
]
Dtype = Literal["auto", "float32", "bfloat16"]


def parse_filter(text: str) -> tuple[str, str]:
    """Split a token filter, `every:N`, `sink:F` or `mask:FILE`, into its kind and its argument.

    Raises:
        UserError: it is none of the forms.
    """
    kind, _, value = text.partition(":")
    good = kind == "mask" and bool(value)
    with contextlib.suppress(ValueError):
        good |= (kind == "every" and int(value) >= 1) or (kind == "sink" and 0 < float(value) < float("inf"))
    if not good:
        raise UserError(f"--tokens {text!r} is not a filter: write every:N, sink:FACTOR or mask:FILE.npy.")
    return kind, value


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a sparse autoencoder on one hook site of a run's activations, or several in one pass over the data.

    Several values for --arch, --d-sae, --k or --lr train every combination of them, each into a folder of its own.
    """

    run: Path
    """Run folder with the activations."""
    site: str
    """Hook site to train on, such as resid/12; `collect` names the sites that it stored."""
    name: str | None = None
    """Name of the SAE's folder under `sae/`; by default SITE-ARCH-dSAE-kK. In a sweep, the beginning of the names."""
    arch: tuple[Architecture, ...] = ("batchtopk",)
    """Which latents stay active: the k largest of each token (topk), k per token on average (batchtopk), the same in
    nested dictionaries (matryoshka_batchtopk), and others with SAELens's names."""
    d_sae: tuple[int, ...] = (32768,)
    """Number of latents."""
    k: tuple[int, ...] = (64,)
    """Active latents per token."""
    lr: tuple[float, ...] = ()
    """Peak learning rate; by default 2e-4 / sqrt(d_sae / 16384)."""
    epochs: float = 1.0
    """Passes over the train videos' tokens; may be a fraction."""
    batch_size: int = 4096
    """Tokens per step, over all processes."""
    tokens: tuple[str, ...] = ()
    """Train only on some tokens: every:N (each N-th time step), sink:F (none with more than F times the median norm),
    mask:FILE.npy (rows marked in a file with one bool per row)."""
    seed: int = 0
    """Seed of the initial weights and of the order of the tokens."""
    device: str = "auto"
    """Device to train on: auto, cpu, cuda, cuda:1 …."""
    dtype: Dtype = "auto"
    """Precision of the encoder's matrix product; weights and optimiser are always float32. `auto` is bfloat16 on a GPU
    that computes in it, else float32."""
    options: tuple[str, ...] = ()
    """Further settings as NAME=VALUE, such as dead_tokens=1000000 or checkpoint_every=500; docs/training.md has all."""
    wandb: bool = False
    """Log to Weights & Biases as well as to metrics.jsonl."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: an argument is out of its range.
        """
        for flag, values in (("--arch", self.arch), ("--d-sae", self.d_sae), ("--k", self.k), ("--lr", self.lr)):
            if len(set(values)) < len(values):
                raise UserError(f"{flag} {' '.join(map(str, values))} names a value twice: name each once.")
            if not values and flag != "--lr":
                raise UserError(f"{flag} has no value: give at least one.")
        for flag, value in (
            *(("--d-sae", value) for value in self.d_sae),
            *(("--k", value) for value in self.k),
            ("--batch-size", self.batch_size),
        ):
            if value < 1:
                raise UserError(f"{flag} {value} is too small: give at least 1.")
        if max(self.k) > min(self.d_sae):
            raise UserError(
                f"--k {max(self.k)} is more than the {min(self.d_sae)} latents: lower --k or raise --d-sae."
            )
        if not 0 < self.epochs < float("inf"):
            raise UserError(f"--epochs {self.epochs} is not a positive number: give how often to pass over the tokens.")
        for lr in self.lr:
            if not 0 < lr < float("inf"):
                raise UserError(f"--lr {lr} is not a positive number: leave it out for the default.")
        require_seed(self.seed)
        if self.name is not None:
            require_name("--name", self.name)
        for sae in self.saes():
            require_name("--site" if self.name is None else "--name", sae.name)
        for text in self.tokens:
            parse_filter(text)
        for width in self.d_sae:
            self.parsed.sae.widths(width)
        for arch in self.arch:
            self.parsed.sae.check(arch)

    @cached_property
    def parsed(self) -> Options:
        """What `options` says."""
        return parse_options(self.options)

    def saes(self) -> "tuple[SaeConfig, ...]":
        """The SAEs to train: every combination of the values of arch, d_sae, k and lr."""
        rates = self.lr or (None,)
        chosen = list(itertools.product(self.arch, self.d_sae, self.k, rates))
        return tuple(
            SaeConfig(config=self, name=self._name(arch, d_sae, k, lr), arch=arch, d_sae=d_sae, k=k, lr=lr)
            for arch, d_sae, k, lr in chosen
        )

    @property
    def sae_name(self) -> str:
        """Name of the SAE's folder under `sae/`; of the first one in a sweep."""
        return self.saes()[0].name

    @property
    def folder(self) -> Path:
        """The SAE's folder; that of the first one in a sweep."""
        return self.saes()[0].folder

    def _name(self, arch: Architecture, d_sae: int, k: int, lr: float | None) -> str:
        is_sweep = len(self.arch) * len(self.d_sae) * len(self.k) * max(1, len(self.lr)) > 1
        if self.name is not None and not is_sweep:
            return self.name
        rate = f"-lr{lr:g}" if len(self.lr) > 1 else ""
        return f"{self.name or self.site.replace('/', '_')}-{arch}-{d_sae}-k{k}{rate}"


@dataclass(frozen=True, kw_only=True)
class SaeConfig:
    """One SAE of a training: one value for each argument that may have several."""

    config: TrainConfig
    """What it shares with the others."""
    name: str
    """Name of its folder under `sae/`."""
    arch: Architecture
    d_sae: int
    k: int
    lr: float | None

    @property
    def folder(self) -> Path:
        """The SAE's folder."""
        return self.config.run / "sae" / self.name

    def arguments(self) -> dict[str, Any]:
        """Arguments that train only this SAE into the same folder; options without effect on it are left out."""
        config = self.config
        alone = {"name": self.name if self.name != self._plain_name() else config.name}
        single = {"arch": self.arch, "d_sae": self.d_sae, "k": self.k, "lr": self.lr}
        shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        return {**shared, **alone, **single, "options": config.parsed.effective()}

    def _plain_name(self) -> str:
        """The name that it would have alone, if none were given."""
        return dataclasses.replace(
            self.config,
            name=None,
            arch=(self.arch,),
            d_sae=(self.d_sae,),
            k=(self.k,),
            lr=() if self.lr is None else (self.lr,),
        ).sae_name
