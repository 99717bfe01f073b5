"""A process that takes kernel steps with others, in Triton's interpreter; `test_data_parallel` starts it.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=… MASTER_PORT=… python -m tests.train_sae.kernels.data_parallel FILE

The first process writes, for each architecture, the state after the last step and what each step said. With one process
the steps are those of a process alone, on the same tokens.
"""

import sys

import torch

import tests.train_sae.kernels.interpreted  # noqa: F401
from train_sae.config import Architecture
from train_sae.kernels.step import kernel_step
from train_sae.processes.parallel import joined
from train_sae.step.settings import StepSettings
from train_sae.step.state import initial_state

ARCHITECTURES: tuple[Architecture, ...] = ("topk", "batchtopk", "matryoshka_batchtopk", "frozen_decoder")
N_STEPS, N_TOKENS, D_IN, D_SAE = 4, 8, 5, 16


def main(path: str) -> None:
    """Take the steps of all architectures, with this process's part of every batch."""
    torch.set_num_threads(1)
    found: dict[str, torch.Tensor] = {}
    with joined(shard_latents=False, device=torch.device("cpu")) as group:
        mine = slice(group.rank * N_TOKENS // group.n_data, (group.rank + 1) * N_TOKENS // group.n_data)
        for arch in ARCHITECTURES:
            settings = StepSettings(arch=arch, k=2, dead_tokens=N_TOKENS, aux_k=3, group=group)
            state = initial_state(torch.zeros(D_IN), D_SAE, 0, arch)
            # Against this epsilon a gradient of pure rounding moves no weight.
            state.optimizer.param_groups[0]["eps"] = 1e-3
            generator = torch.Generator().manual_seed(1)
            for step in range(N_STEPS):
                x = torch.randn(N_TOKENS, D_IN, generator=generator)
                stats = kernel_step(state, x[mine].contiguous(), settings, 1e-2)
                found |= {f"{arch} stats.{step}.{name}": value for name, value in stats._asdict().items()}
            found |= {f"{arch} {name}": value.detach().clone() for name, value in state.tensors().items()}
        if group.is_first:
            torch.save(found, path)
        group.barrier()


if __name__ == "__main__":
    main(sys.argv[1])
