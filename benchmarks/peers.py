"""A training step of sparsify (EleutherAI) and of dictionary_learning, as their own trainers take it.

    pip install -c constraints.txt eai-sparsify                           part of the dev extra
    pip install -c constraints.txt --no-deps dictionary-learning einops   `make bench` does this

dictionary_learning asks for nnsight before 0.4, umap-learn, circuitsvis and, through them, diffusers and llvmlite: they
install beside our versions, but are 320 MB that its trainers never use. What is not installed is named by `notes` and
left out of `available`.

Both sides: float32 weights, Adam with a constant learning rate and torch's defaults, the upkeep of the decoder's norm,
of the counters of silent tokens, and their reading of the loss at each step, which neither trainer can be told to leave
out. In bfloat16 the forward pass is under autocast. Float32 products keep torch's default precision.

sparsify's `Trainer` needs a language model, so `SparsifyStep` is the body of its loop around `SparseCoder`. Its default
optimiser is signum, here it is its "adam" without bitsandbytes. Its forward pass forces bfloat16 autocast on CUDA, here
float32 means float32 there too. AuxK is off, which is its default. On a CPU its decoder is its own eager one.

dictionary_learning's trainers are used as they are, with the backward pass under autocast too. Its `trainSAE` has
autocast on CUDA only, here a CPU has it as well; and it casts the batch to bfloat16, here that stays float32, since its
Matryoshka trainer would make a bfloat16 parameter of it. The moving threshold starts at once instead of after 1000
steps: it is part of nearly all steps of a real run.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec
from itertools import cycle, pairwise
from typing import Any

import torch
from torch import Tensor

from benchmarks.sizes import Size
from collect.errors import UserError
from train_sae.config import Architecture
from train_sae.step.settings import StepSettings

_LR = 1e-4
_FOREVER = 10**9
"""Steps of a run: its learning rate stays where it is."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another library's trainer."""

    distribution: str
    """Name on PyPI."""
    modules: tuple[str, ...]
    """What its trainers import besides what we depend on."""
    install: str
    """Command that brings them."""
    architectures: tuple[Architecture, ...]
    """Those that it trains."""
    step: Callable[[Size, Architecture, torch.dtype, list[Tensor]], Callable[[], float]]
    """Makes a step on the next batch, which returns the loss before it."""

    @property
    def missing(self) -> tuple[str, ...]:
        """What cannot be imported; a module of the same name from another distribution does not count."""
        try:
            version(self.distribution)
        except PackageNotFoundError:
            return (self.modules[0],)
        return tuple(name for name in self.modules if find_spec(name) is None)


@dataclass
class SparsifyStep:
    """What sparsify's `Trainer.fit` does with a batch of activations."""

    coder: Any
    """Its `SparseCoder`."""
    optimizer: torch.optim.Optimizer
    scheduler: Any
    data: Iterator[Tensor]
    precision: torch.dtype
    tokens_since_fired: Tensor
    did_fire: Tensor

    def __call__(self) -> float:
        """Take a step; returns the FVU before it."""
        x = next(self.data)
        self.coder.set_decoder_norm_to_unit_norm()
        total_variance = (x - x.mean(0)).pow(2).sum()
        # Without the decorator, which is autocast on CUDA whether asked for or not.
        forward = type(self.coder).forward.__wrapped__
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            out = forward(self.coder, x, y=x, total_variance=total_variance)
        self.did_fire[out.latent_indices.flatten()] = True
        fvu = float(out.fvu.detach())
        out.fvu.backward()
        self.coder.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        with torch.no_grad():
            self.tokens_since_fired += len(x)
            self.tokens_since_fired[self.did_fire] = 0
            self.did_fire.zero_()
        return fvu


@dataclass
class DictionaryLearningStep:
    """What dictionary_learning's `trainSAE` does with a batch of activations."""

    trainer: Any
    """Its `SAETrainer`."""
    data: Iterator[Tensor]
    precision: torch.dtype
    n_steps: int = 0

    def __call__(self) -> float:
        """Take a step; returns the loss before it."""
        x = next(self.data)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            loss: float = self.trainer.update(self.n_steps, x)
        self.n_steps += 1
        return loss


def sparsify_step(size: Size, arch: Architecture, precision: torch.dtype, data: list[Tensor]) -> SparsifyStep:
    """One step of sparsify on the next batch.

    Raises:
        UserError: it cannot be imported, or does not train the architecture.
    """
    _check("sparsify", arch)
    sparse_coder: Any = importlib.import_module("sparsify.sparse_coder")
    sparse_coder.decoder_impl = _sparsify_decode
    from transformers import get_linear_schedule_with_warmup

    torch.manual_seed(0)
    config = sparse_coder.SparseCoderConfig(num_latents=size.d_sae, k=size.k)
    coder = sparse_coder.SparseCoder(size.d_in, config, size.device, dtype=torch.float32)
    coder.b_dec.data = data[0].mean(0)
    optimizer = torch.optim.Adam(coder.parameters(), lr=_LR)
    return SparsifyStep(
        coder,
        optimizer,
        get_linear_schedule_with_warmup(optimizer, 0, _FOREVER),
        cycle(data),
        precision,
        tokens_since_fired=torch.zeros(size.d_sae, device=size.device, dtype=torch.long),
        did_fire=torch.zeros(size.d_sae, device=size.device, dtype=torch.bool),
    )


def dictionary_learning_step(
    size: Size, arch: Architecture, precision: torch.dtype, data: list[Tensor]
) -> DictionaryLearningStep:
    """One step of dictionary_learning on the next batch.

    Raises:
        UserError: it cannot be imported, or does not train the architecture.
    """
    _check("dictionary_learning", arch)
    name, trainer = {
        "topk": ("top_k", "TopKTrainer"),
        "batchtopk": ("batch_top_k", "BatchTopKTrainer"),
        "matryoshka_batchtopk": ("matryoshka_batch_top_k", "MatryoshkaBatchTopKTrainer"),
    }[arch]
    options: dict[str, Any] = {
        "steps": _FOREVER,
        "activation_dim": size.d_in,
        "dict_size": size.d_sae,
        "k": size.k,
        "layer": 0,
        "lm_name": "",
        "lr": _LR,
        "warmup_steps": 0,
        "threshold_start_step": 0,
        "seed": 0,
        "device": size.device,
    }
    if arch == "matryoshka_batchtopk":
        widths = StepSettings(arch=arch, k=1, dead_tokens=1, aux_k=1).widths(size.d_sae, 0)
        # It rounds down what a fraction comes to: the half keeps rounding errors from costing a latent.
        groups = [after - before for before, after in pairwise((0, *widths))]
        fractions = [(group + 0.5) / size.d_sae for group in groups[:-1]]
        options["group_fractions"] = [*fractions, 1 - sum(fractions)]
    made = getattr(_dictionary_learning(f"trainers.{name}"), trainer)(**options)
    return DictionaryLearningStep(made, cycle(data), precision)


PEERS = {
    "sparsify": Peer(
        distribution="eai-sparsify",
        modules=("sparsify", "einops", "natsort", "schedulefree", "simple_parsing"),
        install="pip install -c constraints.txt eai-sparsify",
        architectures=("topk",),
        step=sparsify_step,
    ),
    "dictionary_learning": Peer(
        distribution="dictionary-learning",
        modules=("dictionary_learning", "einops"),
        install="pip install -c constraints.txt --no-deps dictionary-learning einops",
        architectures=("topk", "batchtopk", "matryoshka_batchtopk"),
        step=dictionary_learning_step,
    ),
}


def available() -> dict[str, Peer]:
    """The peers that can be imported; finding out imports none."""
    return {name: peer for name, peer in PEERS.items() if not peer.missing}


def notes() -> list[str]:
    """A line per peer: its version and architectures, or why it is not compared with."""
    return [
        f"{name} is not compared with: {_remedy(peer)}"
        if peer.missing
        else f"{name} is {peer.distribution} {version(peer.distribution)}: {', '.join(peer.architectures)}"
        for name, peer in PEERS.items()
    ]


def _remedy(peer: Peer) -> str:
    return f"cannot import {', '.join(peer.missing)}. To install: {peer.install}"


def _check(name: str, arch: Architecture) -> None:
    peer = PEERS[name]
    if arch not in peer.architectures:
        raise UserError(f"{name} does not train {arch}: compare it on {', '.join(peer.architectures)}.")
    if peer.missing:
        raise UserError(f"{name}: {_remedy(peer)}")


def _sparsify_decode(indices: Tensor, acts: Tensor, dec: Tensor) -> Tensor:
    """Its decoder for the device; by itself it takes its Triton kernels on a CPU too, where they cannot run."""
    utils: Any = sys.modules["sparsify.utils"]
    decode = utils.decoder_impl if acts.is_cuda else utils.eager_decode
    return decode(indices, acts, dec)


def _dictionary_learning(name: str) -> Any:
    """A module of dictionary_learning, without running the package's `__init__`.

    That imports nnsight for activations of text models, and nnsight replaces the functions of `math` and `einops` and a
    method of `torch.autocast` in the whole process.
    """
    package = "dictionary_learning"
    if package not in sys.modules:
        spec = find_spec(package)
        assert spec is not None
        sys.modules[package] = module_from_spec(spec)
    return importlib.import_module(f"{package}.{name}")
