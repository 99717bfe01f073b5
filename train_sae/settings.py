"""How an SAE is trained, with everything that follows from the data and from the processes: resolved once.

`SaeSettings` is one SAE: its folder, its size, its rate. It holds the `StepSettings` of its steps, which hold the
`SaeOptions`: what `--options` says about the architecture, the normalisation and the optimiser.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train_sae.config import SaeConfig
from train_sae.processes.group import SOLO, Group
from train_sae.step.settings import StepSettings

_MAX_DEAD_TOKENS = 10_000_000
_THRESHOLD_RATE = 0.01
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class SaeSettings:
    """One SAE of a training."""

    name: str
    folder: Path
    site: str
    """Hook site whose activations it is trained on."""
    d_sae: int
    lr: float
    """Peak learning rate."""
    batch_size: int
    """Tokens per step, over all processes."""
    n_steps: int
    """Steps of the whole training."""
    step: StepSettings
    arguments: Mapping[str, Any]
    """Arguments that train it alone, as its config.json keeps them."""
    wandb: bool
    """Whether to log to Weights & Biases as well."""


def resolve(sae: SaeConfig, *, d_in: int, n_tokens: int, group: Group = SOLO) -> SaeSettings:
    """Work out how an SAE is trained.

    Args:
        sae: what was requested; its dtype is a tensor's, not `auto`.
        d_in: width of the residual stream.
        n_tokens: tokens to train on, over all processes: those of one epoch.
        group: the processes that train it together.
    """
    config, options = sae.config, sae.config.parsed
    n_steps = max(1, round(config.epochs * n_tokens / config.batch_size))
    given = options.loop.dead_tokens
    step = StepSettings(
        arch=sae.arch,
        k=sae.k,
        dead_tokens=given if given is not None else min(n_tokens, _MAX_DEAD_TOKENS),
        aux_k=max(1, d_in // 2),
        precision=_PRECISIONS[config.dtype],
        # Short trainings forget faster: the first steps, with different activations, should be forgotten by the end.
        threshold_rate=min(1.0, max(_THRESHOLD_RATE, 20 / n_steps)),
        seed=config.seed,
        options=options.sae,
        group=group,
    )
    return SaeSettings(
        name=sae.name,
        folder=sae.folder,
        site=config.site,
        d_sae=sae.d_sae,
        lr=sae.lr if sae.lr is not None else default_lr(sae.d_sae),
        batch_size=config.batch_size,
        n_steps=n_steps,
        step=step,
        arguments=sae.arguments(),
        wandb=config.wandb,
    )


def default_lr(d_sae: int) -> float:
    """Peak learning rate by the m^-½ rule.

    Source: Gao et al. 2024, figure 3, refitted by peers.
    """
    return 2e-4 / (d_sae / 2**14) ** 0.5
