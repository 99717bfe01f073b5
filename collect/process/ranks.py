"""This process among those that `torchrun` (or any launcher that sets its variables) has started.

Processes work independently; only at the start does the first one decide who does what and tell the others. Nothing is
held open afterwards, so a process that dies does not affect the others. Stages that exchange more stay `in_touch`.
"""

import ctypes
import datetime
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from collect.errors import UserError

logger = logging.getLogger(__name__)

LONGEST_WAIT = datetime.timedelta(days=30)
"""For a process that works alone while the others wait; one that has died is noticed by torchrun."""
PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that the death of the parent sends."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """Place of this process among all."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Place on its machine, which is also the number of its GPU."""

    @classmethod
    def of_environment(cls) -> "Process":
        """Read RANK, WORLD_SIZE and LOCAL_RANK; without them the process is alone.

        Raises:
            UserError: the variables are not numbers that fit together.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        try:
            rank, world_size, local_rank = (
                int(os.environ.get(name, d)) for name, d in zip(names, (0, 1, 0), strict=True)
            )
        except ValueError:
            rank, world_size, local_rank = -1, 0, -1
        if not (0 <= rank < world_size and local_rank >= 0):
            found = ", ".join(f"{name}={os.environ.get(name)}" for name in names)
            raise UserError(
                f"The launcher's variables do not fit together ({found}): unset them, or start with "
                "`torchrun --nproc-per-node 8 -m video_sae -- COMMAND …`."
            )
        return cls(rank=rank, world_size=world_size, local_rank=local_rank)

    def agree(self, decide: Callable[[], Any]) -> Any:
        """Have the first process decide and tell all others, through torch's process group if there is one.

        Args:
            decide: returns what JSON can hold; called in the first process only.

        Raises:
            UserError: as `decide` raised it, in every process.
        """
        if self.world_size == 1:
            return decide()
        import torch.distributed as dist

        message: list[str | None] = [None]
        with in_touch("gloo"):
            if self.rank == 0:
                message[0] = _outcome(decide)
            dist.broadcast_object_list(message, src=0)
        outcome = json.loads(cast("str", message[0]))
        if "error" in outcome:
            raise UserError(outcome["error"])
        return outcome["result"]


def end_with_launcher() -> None:
    """Have the kernel end this process when torchrun is killed, on Linux; it would wait for its peers for ever.

    A launcher that is asked to end tells its processes itself. Nothing is lost: stages go on from what is on disk.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        logger.warning("this process will outlive a torchrun that is killed: %s", os.strerror(ctypes.get_errno()))


@contextmanager
def in_touch(backend: str, longest_wait: datetime.timedelta | None = None) -> Generator[None]:
    """Within the block, torch's default process group joins the processes of the launcher.

    The group is left as it was found: a process that ends while it has one may be aborted.

    Args:
        backend: of the group, where there is none yet.
        longest_wait: for other processes; torch's own default if None.
    """
    import torch.distributed as dist

    if dist.is_initialized():
        yield
        return
    # Its functions take the group as a default when torch first needs the module: import it now, or they keep ours for
    # ever.
    importlib.import_module("torch.distributed.nn")
    dist.init_process_group(backend, timeout=longest_wait)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _outcome(decide: Callable[[], Any]) -> str:
    try:
        return json.dumps({"result": decide()})
    except UserError as error:
        return json.dumps({"error": str(error)})
