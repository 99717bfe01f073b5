"""Speed of a training step against `sae_lens.SAETrainer`, and against the one matrix product that it cannot avoid.

Same architecture, data, batch size, weights' precision and threads, no logging, no dead latents. "Equal precision" is
float32 against float32, and our bfloat16 encoder against SAELens's bfloat16 autocast; both keep float32 weights. The
matrix product is the encoder's own without its bias, `x @ W_enc`, in the same precision, of operands that are already
cast: by the operation that our step uses, and by `torch.mm`, which takes twice as long in float32 on some processors.
No step can avoid Adam either: its fused update of all weights is timed alone too, so that product + Adam is a floor.
`benchmarks.peers` says how sparsify and dictionary_learning take theirs; where one is not installed or does not train
an architecture, it is left out.

Every side has a process of its own, as its users would run it: ours and its product keep freed memory, as
`video-sae train` does, and `torch.mm` writes into memory that is already there. A round times ours, the product,
`torch.mm`, SAELens and the other peers, the product, ours: a load that rises or falls in it meets all sides alike. A
round's time of ours and of the product is the mean of its two; ratios are medians over rounds of ratios in a round.

Metrics, for each size S of small, medium, large, and cuda where there is a GPU:

    S_tokens_per_s          our BatchTopK step with a bfloat16 encoder
    S_sae_lens_speedup      SAELens's time / ours: the lowest over architectures and precisions
    S_PEER_speedup          the same for each other peer
    S_step_over_gemm        our step / its encoder product in bfloat16: the highest over architectures
    S_step_over_gemm_fp32   the same in float32
    S_floor_over_gemm       (product in bfloat16 + Adam) / product: the median over architectures
    S_floor_over_gemm_fp32  the same in float32
    S_peak_rss_mib          highest resident memory over our BatchTopK steps (weights, data, what was imported included)
    S_host_ms               cuda only: until our BatchTopK step with a bfloat16 encoder returns, which is when the host
                            has launched it
    S_ARCH_PRECISION_ms, …_gemm_ms, …_mm_ms, …_adam_ms, …_PEER_ms      each combination; medians
    S_ARCH_PRECISION_over_gemm, …_over_mm, …_PEER_speedup              ratios of each combination
    S_ARCH_PRECISION_min_ms, …_gemm_min_ms, …_mm_min_ms, …_adam_min_ms, …_PEER_min_ms, …_min_over_gemm
                                                                       of the fastest calls
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Options, median_ratio, run_benchmark
from benchmarks.peers import PEERS, available, notes
from benchmarks.processes import Side
from benchmarks.sizes import CUDA, QUICK_SIZES, SIZES, Size, batches
from train_sae.config import Architecture
from train_sae.step.fastest import take_step
from train_sae.step.linear import linear
from train_sae.step.memory import freed_memory_kept
from train_sae.step.settings import StepSettings
from train_sae.step.state import initial_state

ARCHITECTURES: tuple[Architecture, ...] = ("topk", "batchtopk", "matryoshka_batchtopk")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_PRODUCTS = ("gemm", "mm")
_PARTS = (*_PRODUCTS, "adam")


def our_step(size: Size, arch: Architecture, precision: torch.dtype) -> Callable[[], object]:
    """One of our steps on the next batch."""
    data = batches(size)
    state = initial_state(torch.zeros(size.d_in, device=size.device), size.d_sae, 0, arch)
    settings = StepSettings(arch=arch, k=size.k, dead_tokens=10_000_000, aux_k=size.d_in // 2, precision=precision)
    source = cycle(data)
    return lambda: take_step(state, next(source), settings, 1e-4)


def sae_lens_sae(arch: Architecture, *, d_in: int, d_sae: int, k: int, device: str = "cpu", norm: str = "none") -> Any:
    """A `TrainingSAE` of SAELens with its defaults, and with our default Matryoshka widths."""
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.matryoshka_batchtopk_sae import (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
    )
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    common: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "k": k, "device": device, "normalize_activations": norm}
    match arch:
        case "topk":
            return TopKTrainingSAE(TopKTrainingSAEConfig(**common))
        case "batchtopk":
            return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**common))
        case _:
            widths = list(StepSettings(arch=arch, k=1, dead_tokens=1, aux_k=1).widths(d_sae, 0))
            return MatryoshkaBatchTopKTrainingSAE(
                MatryoshkaBatchTopKTrainingSAEConfig(matryoshka_widths=widths, **common)
            )


def sae_lens_step(size: Size, arch: Architecture, precision: torch.dtype) -> Callable[[], object]:
    """One step of `sae_lens.SAETrainer` on the next batch."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(0)
    sae = sae_lens_sae(arch, d_in=size.d_in, d_sae=size.d_sae, k=size.k, device=size.device)
    source = cycle(batches(size))
    config = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=size.batch_size,
        lr=1e-4,
        lr_end=1e-4,
        device=size.device,
        autocast=precision == torch.bfloat16,
    )
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=source)

    def step() -> None:
        trainer.step(next(source))
        trainer.n_training_steps += 1

    return step


def peer_step(name: str, size: Size, arch: Architecture, precision: torch.dtype) -> Callable[[], object]:
    """One step of a peer on the next batch."""
    return PEERS[name].step(size, arch, precision, batches(size))


def gemm(size: Size, precision: torch.dtype) -> Callable[[], object]:
    """The encoder's product alone, as our step takes it."""
    enc, inputs = _operands(size, precision)
    source = cycle(inputs)
    return lambda: linear(next(source), enc)


def mm(size: Size, precision: torch.dtype) -> Callable[[], object]:
    """The encoder's product alone, by `torch.mm`."""
    enc, inputs = _operands(size, precision)
    pre, source = inputs[0].new_empty(size.batch_size, size.d_sae), cycle(inputs)
    return lambda: torch.mm(next(source), enc.T, out=pre)


def adam(size: Size, precision: torch.dtype) -> Callable[[], object]:
    """Adam's update alone, as our step takes it; its numbers are float32 whatever the encoder's precision."""
    del precision
    state = initial_state(torch.zeros(size.d_in, device=size.device), size.d_sae, 0, "batchtopk")
    for weight in state.trained.values():
        weight.grad = torch.full_like(weight, 1e-3)
    return state.optimizer.step


def _operands(size: Size, precision: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    enc = torch.randn(size.d_sae, size.d_in, generator=generator).to(size.device, precision)
    return enc, [x.to(precision) for x in batches(size)]


@dataclass(frozen=True)
class Times:
    """Seconds of one side."""

    rounds: list[float]
    """Mean of its calls in each round."""
    fastest: float
    """The fastest call."""


def interleave(sides: Mapping[str, Side], rounds: int) -> dict[str, Times]:
    """Time sides in rounds as above.

    Args:
        sides: "ours", "gemm" and others, prepared.
        rounds: number of rounds.
    """
    others = [name for name in sides if name not in ("ours", "gemm")]
    found: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for times in found.values():
            times.append([])
        for name in ("ours", "gemm", *others, "gemm", "ours"):
            found[name][-1].append(sides[name].seconds())
    return {
        name: Times([sum(calls) / len(calls) for calls in times], min(min(calls) for calls in times))
        for name, times in found.items()
    }


def measure(options: Options) -> dict[str, float]:
    """Measure all sizes."""
    print(*notes(), sep="\n")
    sizes = dict(QUICK_SIZES if options.quick else SIZES)
    if torch.cuda.is_available():
        sizes["cuda"] = CUDA
    metrics: dict[str, float] = {}
    with ExitStack() as stack:
        sides = {
            "ours": stack.enter_context(Side(our_step, freed_memory_kept)),
            "gemm": stack.enter_context(Side(gemm, freed_memory_kept)),
            "mm": stack.enter_context(Side(mm)),
            "adam": stack.enter_context(Side(adam, freed_memory_kept)),
            "sae_lens": stack.enter_context(Side(sae_lens_step)),
            **{name: stack.enter_context(Side(partial(peer_step, name))) for name in available()},
        }
        for name, size in sizes.items():
            metrics |= {f"{name}_{key}": value for key, value in _measure(size, sides).items()}
    return metrics


def _measure(size: Size, sides: Mapping[str, Side]) -> dict[str, float]:
    found: dict[str, float] = {}
    speedups: dict[str, list[float]] = {}
    over_gemm: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    floors: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for precision_name, precision in PRECISIONS.items():
        for name in _PARTS:
            sides[name].prepare(size, precision)
        for arch in ARCHITECTURES:
            named = {
                name: side for name, side in sides.items() if name not in PEERS or arch in PEERS[name].architectures
            }
            for name, side in named.items():
                if name not in _PARTS:
                    side.prepare(size, arch, precision)
            times = interleave(named, size.rounds)
            key = f"{arch}_{precision_name}"
            for name, side_times in times.items():
                of_side = key if name == "ours" else f"{key}_{name}"
                found[f"{of_side}_ms"] = 1000 * median(side_times.rounds)
                found[f"{of_side}_min_ms"] = 1000 * side_times.fastest
                if name != "ours" and name not in _PARTS:
                    found[f"{of_side}_speedup"] = median_ratio(side_times.rounds, times["ours"].rounds)
                    speedups.setdefault(name, []).append(found[f"{of_side}_speedup"])
            for name in _PRODUCTS:
                found[f"{key}_over_{name}"] = median_ratio(times["ours"].rounds, times[name].rounds)
            found[f"{key}_min_over_gemm"] = times["ours"].fastest / times["gemm"].fastest
            over_gemm[precision_name].append(found[f"{key}_over_gemm"])
            floors[precision_name].append(1 + median_ratio(times["adam"].rounds, times["gemm"].rounds))
    sides["ours"].prepare(size, "batchtopk", torch.bfloat16)
    if size.device == "cuda":
        found["host_ms"] = 1000 * sides["ours"].launch_seconds(20)
    return {
        "tokens_per_s": 1000 * size.batch_size / found["batchtopk_bf16_ms"],
        **{f"{name}_speedup": min(ratios) for name, ratios in speedups.items()},
        "step_over_gemm": max(over_gemm["bf16"]),
        "step_over_gemm_fp32": max(over_gemm["fp32"]),
        "floor_over_gemm": median(floors["bf16"]),
        "floor_over_gemm_fp32": median(floors["fp32"]),
        "peak_rss_mib": sides["ours"].peak_mib(3),
        **found,
    }


if __name__ == "__main__":
    run_benchmark("train", measure)
