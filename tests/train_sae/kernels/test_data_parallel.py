"""The kernels' steps in two processes over gloo: the same as in one process that takes all tokens."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.train_sae.kernels.data_parallel import ARCHITECTURES, N_STEPS

Tensors = dict[str, Tensor]


def steps_of(path: Path, n_processes: int) -> Tensors:
    """What so many processes found."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = {"WORLD_SIZE": str(n_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # They meet over gloo also where there are GPUs.
    plain = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    words = [sys.executable, "-m", "tests.train_sae.kernels.data_parallel", str(path)]
    running = [
        subprocess.Popen(words, env={**plain, **together, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(n_processes)
    ]
    assert [process.wait(timeout=300) for process in running] == [0] * n_processes
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def alone_and_together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensors, Tensors]:
    """The steps of one process, and those of two."""
    folder = tmp_path_factory.mktemp("steps")
    return steps_of(folder / "alone.pt", 1), steps_of(folder / "together.pt", 2)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_two_processes_take_the_steps_of_one(arch: str, alone_and_together: tuple[Tensors, Tensors]) -> None:
    alone, together = (
        {name: t for name, t in found.items() if name.startswith(f"{arch} ")} for found in alone_and_together
    )
    assert alone.keys() == together.keys()
    for name, expected in alone.items():
        torch.testing.assert_close(
            together[name], expected, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_dead_latents_took_part(arch: str, alone_and_together: tuple[Tensors, Tensors]) -> None:
    for found in alone_and_together:
        assert any(float(found[f"{arch} stats.{step}.aux"]) > 0 for step in range(N_STEPS))
