"""Runs the further analyses for the latents that are confirmed, one after the other, resumable.

    parts/ANALYSIS-HASH-TABLE.parquet   the rows of one target or subject

They are single latents whose ablation moves its subject's questions beyond its controls, and their expected count. They
were chosen on train videos; that they are confirmed decides what is looked at further, never which number is shown.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from ask.questions import Item
from collect.artefact.folder import read_table, write_table
from collect.artefact.table import joined_rows
from collect.data.perception_test import Video
from collect.errors import UserError
from features.division import ALONE, Division
from steer.config import ANALYSES
from steer.mechanism.counters import counter_rows
from steer.mechanism.doses import dose_rows
from steer.mechanism.events import event_rows, event_summary
from steer.mechanism.flow import flow_rows
from steer.mechanism.matched import Bench
from steer.mechanism.occurrences import EventLabel, event_label
from steer.mechanism.rivals import rival_rows
from steer.mechanism.sets import pair_rows, set_rows
from steer.mechanism.swaps import swap_rows, swap_summary
from steer.mechanism.tables import MECHANISM_TABLES
from steer.targets import Target

logger = logging.getLogger(__name__)

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """The analysis of one target or subject."""

    analysis: str
    column: str
    """What tells it from the others of its analysis: `target` or `subject`."""
    value: str
    """Its value in all rows."""
    tables: tuple[str, ...]
    run: Callable[[], tuple[Rows, ...]]
    """Rows of each of the tables."""


def run_analyses(
    parts: Path,
    wanted: Collection[str],
    train: Bench,
    held_out: Bench,
    targets: Sequence[Target],
    by_latent: pd.DataFrame,
    video: Callable[[str], Video],
    division: Division = ALONE,
) -> dict[str, pd.DataFrame]:
    """Run what is wanted, and return all tables by name; those that are not wanted have no rows.

    The processes of a division share the analyses, and each of them gets all tables.

    Args:
        parts: folder of the parts.
        wanted: names of analyses.
        train: the train questions.
        held_out: the held-out questions.
        targets: single latents that move the counts.
        by_latent: latent_subjects.parquet.
        video: the annotated video of an id.
        division: the processes that share the analyses.
    """
    labels = {
        subject: event_label(_of(train.items, subject), video)
        for subject in dict.fromkeys(target.subject for target in targets)
    }
    jobs = [
        job for name in ANALYSES if name in wanted for job in _jobs(name, train, held_out, targets, labels, by_latent)
    ]
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in MECHANISM_TABLES}
    with tqdm(jobs[division.place :: division.n], desc="mechanism", unit="analysis") as progress:
        for job in progress:
            progress.set_postfix_str(job.analysis, refresh=False)
            _run(parts, job)
    division.meet()
    for job in jobs:
        for name, table in zip(job.tables, _run(parts, job), strict=True):
            found[name].append(table)
    return {name: joined_rows(frames, MECHANISM_TABLES[name]) for name, frames in found.items()}


def _of(items: Sequence[Item], subject: str) -> list[Item]:
    return [item for item in items if item.subject == subject]


def _jobs(
    name: str,
    train: Bench,
    held_out: Bench,
    targets: Sequence[Target],
    labels: dict[str, EventLabel | None],
    by_latent: pd.DataFrame,
) -> list[Job]:
    """The jobs of one analysis."""
    if name in ("sets", "counters"):
        return [
            job
            for subject, label in labels.items()
            if (job := _subject_job(name, train, held_out, subject, label, by_latent)) is not None
        ]
    return [_target_job(name, train, held_out, target, labels[target.subject]) for target in targets]


def _target_job(name: str, train: Bench, bench: Bench, target: Target, label: EventLabel | None) -> Job:

    def swaps() -> tuple[Rows, ...]:
        rows = swap_rows(bench, target)
        return rows, swap_summary(rows, target, bench.seed)

    def events() -> tuple[Rows, ...]:
        rows = event_rows(bench, target, label)
        return rows, event_summary(rows, target, bench.seed)

    run: dict[str, tuple[tuple[str, ...], Callable[[], tuple[Rows, ...]]]] = {
        "doses": (("doses",), lambda: (dose_rows(bench, target),)),
        "swaps": (("swaps", "swap_summary"), swaps),
        "events": (("events", "event_summary"), events),
        "rivals": (("rivals",), lambda: (rival_rows(train, bench, target),)),
        "flow": (("flow",), lambda: (flow_rows(bench, target, label),)),
    }
    tables, function = run[name]
    return Job(analysis=name, column="target", value=target.id, tables=tables, run=function)


def _subject_job(
    name: str, train: Bench, held_out: Bench, subject: str, label: EventLabel | None, by_latent: pd.DataFrame
) -> Job | None:
    if name == "sets":

        def sets() -> tuple[Rows, ...]:
            return (
                set_rows(train, held_out, subject, by_latent),
                pair_rows(train, held_out, subject, by_latent),
            )

        return Job(analysis=name, column="subject", value=subject, tables=("sets", "pairs"), run=sets)
    if label is None:
        return None
    return Job(
        analysis=name,
        column="subject",
        value=subject,
        tables=("counters",),
        run=lambda: (counter_rows(train, held_out, subject, label),),
    )


def _run(parts: Path, job: Job) -> list[pd.DataFrame]:
    """The tables of a job, read where it has run."""
    digest = hashlib.sha256(job.value.encode()).hexdigest()[:16]
    paths = [parts / f"{job.analysis}-{digest}-{name}.parquet" for name in job.tables]
    schemas = [MECHANISM_TABLES[name] for name in job.tables]
    if all(path.exists() for path in paths):
        try:
            tables = [read_table(path, schema) for path, schema in zip(paths, schemas, strict=True)]
        except UserError as error:
            logger.warning("%s: it is run again", error)
        else:
            if all(set(table[job.column]) <= {job.value} for table in tables):
                return tables
            logger.warning("%s holds rows of another %s: it is run again", paths[0], job.column)
    tables = [pd.DataFrame(rows, columns=schema.names) for rows, schema in zip(job.run(), schemas, strict=True)]
    for path, table, schema in zip(paths, tables, schemas, strict=True):
        write_table(path, table, schema)
    return tables
