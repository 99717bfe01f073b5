"""Stages as commands, in one process or several, and killed at random moments."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def command(stage: str, run: Path, options: Sequence[str], n: int) -> list[str]:
    """A stage on a run, by torchrun where there are several processes."""
    launched = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"] if n > 1 else []
    return [sys.executable, *launched, "-m", "video_sae", "--", stage, "--run", str(run), *options]


def environment() -> dict[str, str]:
    """One thread per process, and the modules of this tree."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def finish_after_kills(
    words: Sequence[str], within_s: tuple[float, float], *, most: int, seed: int, last_s: float
) -> int:
    """Run a command again and again, killed at a random moment each time, until it ends by itself.

    Args:
        words: the command.
        within_s: seconds from and up to which it is killed.
        most: kills after which it is left alone.
        seed: of the moments.
        last_s: seconds that it may then take.

    Returns:
        How often it was killed.
    """
    rng = random.Random(seed)
    for n_killed in range(most + 1):
        process = subprocess.Popen(
            words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(),
            start_new_session=True,
        )
        try:
            process.wait(timeout=rng.uniform(*within_s) if n_killed < most else last_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            continue
        assert process.returncode == 0
        return n_killed
    raise AssertionError(f"left alone, it did not end within {last_s} s")
