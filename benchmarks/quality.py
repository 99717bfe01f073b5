"""Quality of what the trainer makes against `sae_lens.SAETrainer`.

On data whose true dictionary is known: sampled from a `sae_lens.synthetic.SyntheticModel` with correlated features of
unequal frequency, with as many latents as there are features and k = the mean number of true features per token. And on
residuals of the demo's model, which `collect` reads from videos that the demo generates, with eight times as many
latents as channels.

Both sides train on the same batches in the same order, in float32, with the same peak learning rate, warm-up and decay,
the same normalisation, and a latent counts as dead after the same number of tokens. Everything else is each trainer's
default. Both are then written as SAELens folders, and the same code reads and judges both, on tokens that neither has
seen: of residuals, those of held-out videos. On residuals, where the rate matters more, SAELens is trained at three
rates, and the one with its lowest FVU on those very tokens counts, which favours it; ours keeps its default.

Metrics, for each architecture A of topk, batchtopk, matryoshka on the synthetic data at our default peak rate, A being
also topk_3x, … at three times that rate, and topk_residual, … on residuals; means over seeds of data and weights, SIDE
being ours, ours_again (whose initial encoder weights alone are rounded to bfloat16), ours_bf16 (its encoder in
bfloat16; like ours_again not at three times the rate) or sae_lens:

    A_fvu_SIDE          fraction of variance unexplained on held-out tokens (docs/metrics.md)
    A_dead_SIDE         latents active at no held-out token
    A_recovery_SIDE     sae_lens's mean correlation coefficient: mean |cosine| of decoder directions and true features
                        under the best one-to-one assignment; synthetic data only
    A_f1_SIDE           sae_lens's mean F1 of a latent as a detector of the true feature that it is most like; likewise
    A_l0_SIDE           active latents per token
    A_fvu_excess        FVU of ours / FVU of sae_lens − 1: the largest over the seeds
    A_fvu_excess_SIDE   FVU of ours_again or ours_bf16 / FVU of ours − 1: the largest over the seeds. What ours_again
                        shows is chance: bfloat16 costs something where it exceeds that
    A_fvu_change_SIDE   the same, the mean over the seeds
    A_fvu_change_se_SIDE   and its standard error, where there are several seeds
    A_rate_SIDE         on residuals, of sae_lens: the rate that counts for it, in units of our default
"""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.harness import Options, run_benchmark
from benchmarks.train import sae_lens_sae
from collect.data.split import held_out_ids
from collect.reading import ActivationStore
from train_sae.batches.normalisation import measure as measure_normalisation
from train_sae.batches.token_set import split_by_video
from train_sae.config import Architecture
from train_sae.lens.export import save_sae, to_sae
from train_sae.quality.metrics import evaluate
from train_sae.sae import load_sae
from train_sae.step.fastest import take_step
from train_sae.step.schedule import DECAY_SHARE, WARM_UP_SHARE, learning_rate
from train_sae.step.settings import StepSettings
from train_sae.step.state import initial_state

ARCHITECTURES: dict[str, Architecture] = {
    "topk": "topk",
    "batchtopk": "batchtopk",
    "matryoshka": "matryoshka_batchtopk",
}
SIDES = ("ours", "ours_again", "ours_bf16", "sae_lens")
RATES = (1 / 3, 1.0, 3.0)
"""Peak rates among which SAELens gets its best one on residuals, in units of our default."""
_NORM_BATCHES = 16


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained, on how much of what."""

    d_in: int = 64
    n_features: int = 256
    batch_size: int = 1024
    n_steps: int = 1000
    dead_steps: int = 100
    """A latent is dead after this many steps without firing, on both sides."""
    n_held_out: int = 2**15
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    rate: float = 1.0
    """Peak learning rate, in units of our default."""

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        return self.rate * 2e-4 / (self.n_features / 2**14) ** 0.5


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """How many residuals are collected, and what is trained on them."""

    n_videos: int = 90
    n_epochs: int = 25
    k: int = 16
    task: Task = field(default_factory=lambda: Task(d_in=128, n_features=1024, dead_steps=50, seeds=(0,)))
    """Its number of steps follows from the tokens."""


TASK = Task()
QUICK_TASK = Task(d_in=32, n_features=64, n_steps=150, dead_steps=30, batch_size=512, n_held_out=4096, seeds=(0,))
QUICK_RESIDUALS = Residuals(n_videos=6, n_epochs=5)


@dataclass(frozen=True)
class Data:
    """Sampled tokens and where they come from."""

    model: Any
    """The `SyntheticModel`; None for residuals."""
    train: Tensor
    held_out: Tensor
    k: int
    """Active latents per token."""


def sample(task: Task, seed: int) -> Data:
    """Make a synthetic model and sample from it."""
    from sae_lens.synthetic import LowRankCorrelationConfig, SyntheticModel, SyntheticModelConfig
    from sae_lens.synthetic import ZipfianFiringProbabilityConfig as Zipfian

    config = SyntheticModelConfig(
        num_features=task.n_features,
        hidden_dim=task.d_in,
        firing_probability=Zipfian(exponent=1.0, max_prob=0.3, min_prob=0.01),
        correlation=LowRankCorrelationConfig(rank=8, correlation_scale=0.1, seed=seed),
        std_firing_magnitudes=0.3,
        seed=seed,
    )
    model = SyntheticModel(config)
    torch.manual_seed(seed)
    train = torch.cat([model.sample(task.batch_size) for _ in range(task.n_steps)])
    held_out, features = model.sample_with_features(task.n_held_out)
    return Data(model, train, held_out, max(1, round(float((features > 0).sum(1).double().mean()))))


def collect_residuals(what: Residuals, folder: Path) -> tuple[Task, Data]:
    """Generate videos, run the demo's model on them, and shuffle the residuals of the train videos epoch by epoch."""
    from collect.config import CollectConfig
    from collect.run import collect
    from demo.run import WEIGHTS
    from demo.world.generate import WorldConfig, generate
    from demo.world.scene import SAMPLES

    site = "resid/2"
    generate(folder / "data", WorldConfig(seed=1, n_videos=what.n_videos), workers=2)
    collect(
        CollectConfig(
            data=folder / "data", model=str(WEIGHTS), out=folder / "run", sites=(site,), frames=str(SAMPLES), workers=2
        )
    )
    store = ActivationStore.open(folder / "run" / "activations")
    sets = split_by_video(store.videos, held_out_ids((video.video_id, video.split) for video in store.videos))
    train, held_out = (
        torch.cat([store.read(site, rows.start, rows.stop).float() for rows in ranges])
        for ranges in (sets.train, sets.held_out)
    )
    generator = torch.Generator().manual_seed(0)
    order = torch.cat([torch.randperm(len(train), generator=generator) for _ in range(what.n_epochs)])
    task = replace(what.task, n_steps=len(order) // what.task.batch_size, n_held_out=len(held_out))
    return task, Data(None, train[order[: task.n_steps * task.batch_size]], held_out, what.k)


def train_ours(
    task: Task,
    data: Data,
    arch: Architecture,
    seed: int,
    folder: Path,
    *,
    precision: torch.dtype = torch.float32,
    initially_rounded: bool = False,
) -> None:
    """Train by our step and write the folder.

    Args:
        task: what is trained.
        data: on what.
        arch: architecture.
        seed: of the initial weights.
        folder: to write.
        precision: of the encoder's product.
        initially_rounded: whether the initial encoder weights are rounded to bfloat16.
    """
    batches = data.train.split(task.batch_size)
    normalisation = measure_normalisation(batches[:_NORM_BATCHES])
    state = initial_state(normalisation.center.float(), task.n_features, seed, arch)
    if initially_rounded:
        state.weights.enc.data.copy_(state.weights.enc.data.bfloat16())
    settings = StepSettings(
        arch=arch,
        k=data.k,
        dead_tokens=task.dead_steps * task.batch_size,
        aux_k=task.d_in // 2,
        threshold_rate=max(0.01, 20 / task.n_steps),
        seed=seed,
        precision=precision,
    )
    for step, batch in enumerate(tqdm(batches, desc=f"ours {arch}", unit="step", leave=False)):
        take_step(state, normalisation.apply(batch), settings, learning_rate(step, task.n_steps, task.lr))
    sae = to_sae(
        state.exported,
        arch=arch,
        k=data.k,
        normalisation=normalisation,
        threshold=float(state.threshold),
        metadata={},
    )
    save_sae(folder, sae, torch.zeros(task.n_features))


def train_sae_lens(task: Task, data: Data, arch: Architecture, seed: int, folder: Path) -> None:
    """Train by `sae_lens.SAETrainer` and write the folder."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(seed)
    sae = sae_lens_sae(arch, d_in=task.d_in, d_sae=task.n_features, k=data.k, norm="expected_average_only_in")
    config = SAETrainerConfig(
        total_training_samples=task.n_steps * task.batch_size,
        train_batch_size_samples=task.batch_size,
        lr=task.lr,
        lr_end=task.lr,
        lr_warm_up_steps=max(1, round(WARM_UP_SHARE * task.n_steps)),
        lr_decay_steps=max(1, round(DECAY_SHARE * task.n_steps)),
        dead_feature_window=task.dead_steps,
        n_batches_for_norm_estimate=min(_NORM_BATCHES, task.n_steps),
    )
    batches = data.train.split(task.batch_size)

    def provider() -> Iterator[Tensor]:
        yield from batches[:_NORM_BATCHES]  # what it measures the norm on is not trained on
        yield from batches

    SAETrainer(cfg=config, sae=sae, data_provider=provider()).fit()
    # Decoder directions of norm one, so that the factor which SAELens's TopK would apply at run time is one.
    sae.fold_W_dec_norm()
    sae.cfg.rescale_acts_by_decoder_norm = False
    sae.save_inference_model(folder)


def judge(task: Task, data: Data, folder: Path) -> dict[str, float]:
    """Judge an SAE by its folder."""
    from sae_lens import SAE
    from sae_lens.synthetic import eval_sae_on_synthetic_data

    ((quality, _),) = evaluate([load_sae(folder)], data.held_out.split(4096))
    judged = {"fvu": quality.fvu, "dead": quality.n_dead, "l0": quality.l0}
    if data.model is None:
        return judged
    torch.manual_seed(0)
    found = eval_sae_on_synthetic_data(
        SAE.load_from_disk(folder),
        data.model.feature_dict,
        data.model.activation_generator,
        num_samples=task.n_held_out,
        batch_size=4096,
    )
    return {**judged, "recovery": found.mcc, "f1": found.classification.f1_score}


def measure(options: Options) -> dict[str, float]:
    """Train and judge everything."""
    task, residuals = (QUICK_TASK, QUICK_RESIDUALS) if options.quick else (TASK, Residuals())
    fast = replace(task, rate=3.0)
    with tempfile.TemporaryDirectory() as folder:
        of_residuals, data = collect_residuals(residuals, Path(folder))
    return {
        **compare(task, "", [sample(task, seed) for seed in task.seeds]),
        **compare(fast, "_3x", [sample(task, seed) for seed in task.seeds], sides=("ours", "sae_lens")),
        **compare(of_residuals, "_residual", [data], rates=RATES),
    }


def compare(
    task: Task,
    suffix: str,
    data: Sequence[Data],
    *,
    sides: Sequence[str] = SIDES,
    rates: Sequence[float] = (1.0,),
) -> dict[str, float]:
    """Train all sides on a task and judge them.

    Args:
        task: what is trained.
        suffix: of the architectures' names.
        data: for each seed.
        sides: which of `SIDES`.
        rates: at which SAELens is trained, in units of the task's: the one with its lowest mean FVU counts.
    """
    metrics: dict[str, float] = {}
    for name, arch in ARCHITECTURES.items():
        found: dict[str, list[dict[str, float]]] = {}
        for side in sides:
            tried = {rate: _judged(side, task, data, arch, rate) for rate in (rates if side == "sae_lens" else (1.0,))}
            best = min(tried, key=lambda rate: sum(judged["fvu"] for judged in tried[rate]))
            found[side] = tried[best]
            if len(tried) > 1:
                metrics[f"{name}{suffix}_rate_{side}"] = best
            for key in found[side][0]:
                metrics[f"{name}{suffix}_{key}_{side}"] = sum(judged[key] for judged in found[side]) / len(data)
        metrics[f"{name}{suffix}_fvu_excess"] = max(_relative(found["ours"], found["sae_lens"]))
        for side in (each for each in found if each not in ("ours", "sae_lens")):
            metrics |= {f"{name}{suffix}_{key}_{side}": value for key, value in _change(found[side], found["ours"])}
    return metrics


def _judged(side: str, task: Task, data: Sequence[Data], arch: Architecture, rate: float) -> list[dict[str, float]]:
    """What a side's SAEs are like, for each seed."""
    trainers = {
        "ours": train_ours,
        "ours_again": partial(train_ours, initially_rounded=True),
        "ours_bf16": partial(train_ours, precision=torch.bfloat16),
        "sae_lens": train_sae_lens,
    }
    judged: list[dict[str, float]] = []
    for seed, sampled in zip(task.seeds, data, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            trainers[side](replace(task, rate=task.rate * rate), sampled, arch, seed, Path(folder) / "sae")
            judged.append(judge(task, sampled, Path(folder) / "sae"))
    return judged


def _change(one: Sequence[dict[str, float]], other: Sequence[dict[str, float]]) -> Iterator[tuple[str, float]]:
    changes = _relative(one, other)
    yield "fvu_excess", max(changes)
    yield "fvu_change", statistics.mean(changes)
    if len(changes) > 1:
        yield "fvu_change_se", statistics.stdev(changes) / len(changes) ** 0.5


def _relative(one: Sequence[dict[str, float]], other: Sequence[dict[str, float]]) -> list[float]:
    """By how much the FVU of one exceeds that of the other, in parts of the other's, for each seed."""
    return [a["fvu"] / b["fvu"] - 1 for a, b in zip(one, other, strict=True)]


if __name__ == "__main__":
    run_benchmark("quality", measure)
