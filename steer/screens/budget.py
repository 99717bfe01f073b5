"""Jobs in order, within a time that earlier calls have used too, shared by any number of processes.

Each job leaves one table in `parts/`; a job whose table is there and whole is not run again. The processes run as many
jobs at a time as they are, and meet after each round, so which jobs are done never depends on who runs them.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from collect.artefact.folder import read_object, read_table, write_json, write_table
from collect.errors import UserError
from features.division import ALONE, Division

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work that leaves one table."""

    path: Path
    work: Callable[[], pd.DataFrame]
    is_own: Callable[[pd.DataFrame], bool]
    """Whether a table that was found is the one that this job would leave, as far as its keys say."""


class Budget:
    """Seconds that some jobs may take together, those of earlier calls included.

    Args:
        path: a JSON file that keeps the seconds.
        limit_s: how many there are.
        division: the processes that share the jobs.
    """

    def __init__(self, path: Path, limit_s: float, division: Division = ALONE) -> None:
        self.limit_s = limit_s
        self.division = division
        self._path = path
        self.spent_s = float(division.agree(lambda: _spent(path)))

    def run(self, jobs: Sequence[Job], schema: pa.Schema, until_s: float, tell: Callable[[int], object]) -> int:
        """Run jobs in order, until all are done or the seconds are used up.

        Args:
            jobs: what to run.
            schema: of their tables.
            until_s: seconds, of those of this budget, after which no further job begins.
            tell: called with the number of each job that is done.

        Returns:
            How many jobs, from the first, have left their tables.
        """
        n = self.division.n
        for start in range(0, len(jobs), n):
            numbers = range(start, min(start + n, len(jobs)))
            left: list[int] = self.division.agree(lambda: [k for k in numbers if not _is_done(jobs[k], schema)])  # noqa: B023
            if left and self.spent_s >= until_s:
                return left[0]
            begun = time.monotonic()
            for number in left[self.division.place :: n]:
                write_table(jobs[number].path, jobs[number].work(), schema)
            if left:
                # All wait for the slowest.
                self.spent_s += float(self.division.join(np.array([time.monotonic() - begun])).max())
                if self.division.is_first:
                    write_json(self._path, {"spent_s": self.spent_s})
            self.division.meet()
            for number in numbers:
                tell(number)
        return len(jobs)


def _is_done(job: Job, schema: pa.Schema) -> bool:
    found = read_whole(job.path, schema)
    return found is not None and job.is_own(found)


def read_whole(path: Path, schema: pa.Schema) -> pd.DataFrame | None:
    """A table of an earlier call; None where it is not there or not whole."""
    if not path.exists():
        return None
    try:
        return read_table(path, schema)
    except UserError as error:
        logger.warning("%s: it is made again", error)
        return None


def _spent(path: Path) -> float:
    try:
        return float(read_object(path, "the sweep goes on without it")["spent_s"]) if path.exists() else 0.0
    except (UserError, KeyError, TypeError, ValueError, json.JSONDecodeError):
        return 0.0
