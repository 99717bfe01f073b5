"""Arguments of the `train` stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from collect.errors import UserError

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
Precision = Literal["float32", "bfloat16"]

_MAX_DEAD_TOKENS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a sparse autoencoder on one hook site of a run's activations."""

    run: Path
    """Run folder with the activations."""
    site: str
    """Hook site to train on, such as resid/12; `collect` names the sites that it stored."""
    name: str | None = None
    """Name of the SAE's folder under `sae/`; SITE-ARCH-dSAE-kK if not given."""
    arch: Architecture = "batchtopk"
    """Which latents stay active: the k largest of each token (topk), or k a token on average (batchtopk)."""
    d_sae: int = 32768
    """Number of latents."""
    k: int = 64
    """Active latents a token."""
    epochs: float = 1.0
    """Passes over the train videos' tokens; may be a fraction."""
    batch_size: int = 4096
    """Tokens a step."""
    lr: float | None = None
    """Peak learning rate; 2e-4 / sqrt(d_sae / 16384) if not given."""
    dead_tokens: int | None = None
    """A latent is dead, and revived by AuxK, after so many tokens without firing; one epoch's tokens, but at most ten
    million, if not given."""
    seed: int = 0
    """Seed of the initial weights and of the order of the tokens."""
    device: str = "auto"
    """Device to train on: auto, cpu, cuda, cuda:1 …."""
    dtype: Precision = "float32"
    """Precision of the encoder's matrix product; weights and optimiser are float32 throughout."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    wandb: bool = False
    """Log to Weights & Biases as well as to metrics.jsonl."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: an argument is out of its range.
        """
        for flag, value in (
            ("--d-sae", self.d_sae),
            ("--k", self.k),
            ("--batch-size", self.batch_size),
            ("--checkpoint-every", self.checkpoint_every),
        ):
            if value < 1:
                raise UserError(f"{flag} {value} is too small: give at least 1.")
        if self.k > self.d_sae:
            raise UserError(f"--k {self.k} is more than the {self.d_sae} latents: lower --k or raise --d-sae.")
        if not 0 < self.epochs < float("inf"):
            raise UserError(f"--epochs {self.epochs} is not a positive number: give how often to pass over the tokens.")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise UserError(f"--lr {self.lr} is not a positive number: leave it out for the default.")
        if self.dead_tokens is not None and self.dead_tokens < 1:
            raise UserError(f"--dead-tokens {self.dead_tokens} is too small: give at least 1, or leave it out.")
        if self.name is not None and (not self.name or self.name.startswith(".") or set(self.name) & set('/\\:*?"<>|')):
            raise UserError(f"--name {self.name!r} cannot name a folder: use letters, digits, '-', '_' and '.'.")

    @property
    def sae_name(self) -> str:
        """Name of the SAE's folder under `sae/`."""
        return self.name or f"{self.site.replace('/', '_')}-{self.arch}-{self.d_sae}-k{self.k}"

    @property
    def folder(self) -> Path:
        """The SAE's folder."""
        return self.run / "sae" / self.sae_name

    @property
    def peak_lr(self) -> float:
        """Peak learning rate: as given, or by the m^-½ rule (Source: Gao et al. 2024, figure 3, refitted by peers)."""
        return self.lr if self.lr is not None else 2e-4 / (self.d_sae / 2**14) ** 0.5

    def dead_after(self, epoch_tokens: int) -> int:
        """Tokens without firing after which a latent is dead, where one epoch has so many tokens."""
        return self.dead_tokens if self.dead_tokens is not None else min(epoch_tokens, _MAX_DEAD_TOKENS)
