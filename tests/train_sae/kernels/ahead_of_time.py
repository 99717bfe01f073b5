"""Compiles, without a GPU, what steps of a size would launch on an H100, and prints what each kernel needs.

The steps run on tensors that have a device and a shape but no memory, which no number can be read from either: a step
that waited for the device, or whose shapes depended on the data, would stop here. Triton compiles a kernel for the
types, alignments and constants that its launch would have had, and ptxas, which comes with it, tells the registers.

    python -m tests.train_sae.kernels.ahead_of_time D_IN D_SAE K N_TOKENS
"""

import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from train_sae.config import Architecture
from train_sae.kernels.dead import DeadBound
from train_sae.kernels.step import kernel_step
from train_sae.options import SaeOptions
from train_sae.step.settings import StepSettings
from train_sae.step.state import initial_state

N_DEAD = 300


class H100:
    """A driver that has nothing to drive."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


@contextlib.contextmanager
def compiling() -> Generator[dict[str, Any]]:
    """Within the block, compile kernels instead of launching them; gives them by name and constants."""
    found: dict[str, Any] = {}

    def launcher(kernel: Any, grid: tuple[int, ...]) -> Any:
        def launch(*args: Any, **constants: Any) -> None:
            assert all(type(size) is int and size < 2**31 for size in grid)
            assert all(arg.is_cuda and arg.is_contiguous() for arg in args if isinstance(arg, torch.Tensor))
            types = [arg.dtype if isinstance(arg, torch.Tensor) else arg for arg in args]
            compiled = kernel.warmup(*types, grid=grid, **constants)
            found[f"{kernel.__name__} {constants} {compiled.hash[:8]}"] = compiled

        return launch

    driver.set_active(H100())
    with (
        mock.patch.object(JITFunction, "__getitem__", launcher),
        mock.patch.object(torch.cuda, "device_of", contextlib.nullcontext),  # there is none to switch to
    ):
        yield found


def needs(compiled: Any) -> dict[str, int]:
    """Registers a thread, bytes spilled, bytes of shared memory and warps of a compiled kernel."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(compiled.asm["ptx"])
        command = [triton.knobs.nvidia.ptxas.path, "-v", "-arch=sm_90a", "-o", f"{folder}/kernel.cubin", str(source)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    registers, spilled = (
        re.search(pattern, told) for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores")
    )
    assert registers is not None
    assert spilled is not None
    return {
        "registers": int(registers[1]),
        "spilled": int(spilled[1]),
        "shared": compiled.metadata.shared,
        "warps": compiled.metadata.num_warps,
        "rounds_to_nearest": "cvt.rn.bf16" in compiled.asm["ptx"],
    }


def compile_steps(d_in: int, d_sae: int, k: int, n_tokens: int) -> dict[str, dict[str, int]]:
    """What the kernels of all kinds of steps need."""
    architectures: tuple[Architecture, ...] = ("topk", "matryoshka_batchtopk", "frozen_decoder")
    with FakeTensorMode(), compiling() as found:
        for arch in architectures:
            for precision in (torch.bfloat16, torch.float32):
                settings = StepSettings(arch=arch, k=k, dead_tokens=10**7, aux_k=d_in // 2, precision=precision)
                state = initial_state(torch.empty(d_in, device="cuda"), d_sae, 0, arch)
                x = torch.empty(n_tokens, d_in, device="cuda")
                for n_dead, clip in ((N_DEAD, None), (N_DEAD, 1.0), (0, None)):
                    # A number that would be on its way from a device.
                    with mock.patch.object(DeadBound, "at", return_value=n_dead):
                        kernel_step(state, x, replace(settings, options=SaeOptions(clip_grad_norm=clip)), 1e-4)
        return {name: needs(compiled) for name, compiled in found.items()}


if __name__ == "__main__":
    json.dump(compile_steps(*map(int, sys.argv[1:])), sys.stdout, indent=1)
