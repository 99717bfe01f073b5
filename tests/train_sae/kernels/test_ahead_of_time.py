"""That the kernels compile for a GPU, on a machine that need not have one; what they need is in docs/log.md."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def compile_steps(folder: Path, *sizes: int) -> dict[str, dict[str, Any]]:
    """What the kernels of steps of a size need, compiled in a process of its own: in this one they are interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.train_sae.kernels.ahead_of_time", *map(str, sizes)]
    environment |= {"TRITON_CACHE_DIR": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_sound(kernels: dict[str, dict[str, Any]], spilled: int = 0) -> None:
    names = {name.split()[0] for name in kernels}
    assert names == {
        "_centre", "_chunk_maxima", "_row_bounds", "_list_chunks", "_listed_bounds", "_digit_histogram",
        "_listed_histogram", "_listed_counts", "_write_listed", "_keep_selected", "_decode", "_gradients",
        "_weighted_sum", "_adam",
    }  # fmt: skip
    for name, kernel in kernels.items():
        assert kernel["spilled"] <= spilled, name
        assert kernel["registers"] * kernel["warps"] * 32 <= 65536, f"{name} does not fit into an H100's registers"
        assert kernel["shared"] <= 48 * 1024, name
    shadows = [kernel for name, kernel in kernels.items() if "'SHADOW': True" in name]
    assert shadows
    assert all(kernel["rounds_to_nearest"] for kernel in shadows), "the copy would not be the one of a resumed training"


def test_the_whole_step_compiles_for_a_gpu_and_spills_no_register(tmp_path: Path) -> None:
    assert_sound(compile_steps(tmp_path, 2048, 32768, 64, 8192))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(500, 4096, 20, 300), (1000, 5000, 20, 300), (4096, 131072, 64, 16384)])
def test_it_compiles_at_other_sizes(tmp_path: Path, sizes: tuple[int, int, int, int]) -> None:
    assert_sound(compile_steps(tmp_path, *sizes))


@pytest.mark.slow
def test_the_widest_rows_spill_a_few_registers(tmp_path: Path) -> None:
    assert_sound(compile_steps(tmp_path, 8192, 65536, 64, 4096), spilled=256)
