"""Which process collects which videos into which rank of the store, also after the number of processes has changed.

Videos of one size are put into batches once and for all, so a forward pass has the same shape whichever process makes
it, and every stored bit is the same. A generation gives every process one rank of the store, with its batches. A run
with as many processes as the last generation continues in its ranks. A run with another number begins a new generation
for the videos that no rank has committed; ranks of earlier generations are only completed with the video that their
last shard cuts. So no video is ever stored twice, and only batches that an interruption cut short are computed again.

`plan.json` records batches and generations; the ranks' logs record what is committed. Everything here is pure except
reading and writing that file.
"""

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from collect.artefact.folder import write_atomic
from collect.artefact.inside import inside
from collect.artefact.json_fields import Fields
from collect.artefact.json_file import read_json
from collect.artefact.seal import CHECKSUM, object_condition, seal_object
from collect.data.perception_test import Video
from collect.printable import printable
from collect.store.shards import DAMAGE_REMEDY, damaged

PLAN_NAME = "plan.json"
Batch = tuple[int, ...]
"""Indices of videos of one size, which go through the model together."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What one process of a generation collects into one rank of the store."""

    rank: int
    batches: tuple[int, ...]
    """Numbers of batches."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One division of the videos among processes."""

    world_size: int
    streams: tuple[Stream, ...]
    """One per process, in the order of the processes."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Batches, and every division of them so far."""

    batches: tuple[Batch, ...]
    generations: tuple[Generation, ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """Numbers of all ranks of the store."""
        return tuple(stream.rank for generation in self.generations for stream in generation.streams)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a rank's log says."""

    committed: frozenset[int] = frozenset()
    """Indices of its videos, failures included."""
    partial: int | None = None
    """Index of the video that its last shard cuts."""
    is_final: bool = False


@dataclass(frozen=True, kw_only=True)
class Task:
    """Work of one process on one rank: store the wanted videos of the batches, in order, and finish the rank."""

    rank: int
    batches: tuple[Batch, ...]
    wanted: frozenset[int]


def make_batches(videos: Sequence[Video], size: int) -> tuple[Batch, ...]:
    """Group videos of one frame size into batches of at most `size`, in the order of each batch's first video."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, video in enumerate(videos):
        groups.setdefault((video.height, video.width), []).append(index)
    batches = [tuple(group[i : i + size]) for group in groups.values() for i in range(0, len(group), size)]
    return tuple(sorted(batches))


def estimated_costs(videos: Sequence[Video]) -> list[float]:
    """Estimated work per video: 1 for the model, and on average 1 for decoding, in proportion to frames times pixels.

    A video without sizes in its header counts as an average one.
    """
    pixels = [float(video.n_frames) * video.height * video.width for video in videos]
    known = [value for value in pixels if value > 0]
    mean = sum(known) / len(known) if known else 1.0
    return [1.0 + (value / mean if value > 0 else 1.0) for value in pixels]


def divide(batches: Mapping[int, Batch], costs: Sequence[float], n: int) -> list[tuple[int, ...]]:
    """Divide batches into `n` parts of about the same cost: the costliest first, each to the cheapest part so far.

    Args:
        batches: number -> videos.
        costs: of each video.
        n: number of parts, some of which may stay empty.

    Returns:
        Per part, the numbers of its batches in ascending order.
    """
    totals = {number: sum(costs[i] for i in batch) for number, batch in batches.items()}
    parts: list[list[int]] = [[] for _ in range(n)]
    heap = [(0.0, part) for part in range(n)]
    for number in sorted(totals, key=lambda number: (-totals[number], number)):
        load, part = heapq.heappop(heap)
        parts[part].append(number)
        heapq.heappush(heap, (load + totals[number], part))
    return [tuple(sorted(part)) for part in parts]


def schedule(
    plan: Assignment, progress: Mapping[int, Progress], costs: Sequence[float], world_size: int
) -> tuple[Assignment, list[list[Task]]]:
    """Decide what is left to do for each of `world_size` processes.

    Args:
        plan: the plan so far.
        progress: rank -> what its log says; ranks without a log may be missing.
        costs: of each video.
        world_size: number of processes.

    Returns:
        The plan, with a new generation where one is needed, and each process's tasks in order.
    """
    states = {rank: progress.get(rank, Progress()) for rank in plan.ranks}
    committed = frozenset[int]().union(*(state.committed for state in states.values()))
    cut = {state.partial: rank for rank, state in states.items() if state.partial is not None}
    left = [i for batch in plan.batches for i in batch if i not in committed and i not in cut]
    goes_on = bool(plan.generations) and _continues(plan, left, world_size)
    if left and not goes_on:
        plan = _with_generation(plan, frozenset(left), costs, world_size)
    tasks: list[list[Task]] = [[] for _ in range(world_size)]
    current = plan.generations[-1].streams if goes_on or left else ()
    going = {stream.rank for stream in current}
    ended = [rank for rank, state in states.items() if rank not in going and not state.is_final]
    for place, rank in enumerate(ended):
        partial = states[rank].partial
        batches = tuple(batch for batch in plan.batches if partial in batch)
        wanted = frozenset(() if partial is None else (partial,))
        tasks[place % world_size].append(Task(rank=rank, batches=batches, wanted=wanted))
    for process, stream in enumerate(current):
        state = states.get(stream.rank, Progress())
        if state.is_final:
            continue
        others = {i for i, rank in cut.items() if rank != stream.rank}
        wanted = frozenset(i for number in stream.batches for i in plan.batches[number]) - committed - others
        batches = tuple(plan.batches[number] for number in stream.batches if wanted & set(plan.batches[number]))
        tasks[process].append(Task(rank=stream.rank, batches=batches, wanted=wanted))
    return plan, tasks


def _continues(plan: Assignment, left: Iterable[int], world_size: int) -> bool:
    """Whether the last generation has as many processes and all videos that are left."""
    last = plan.generations[-1]
    assigned = {i for stream in last.streams for number in stream.batches for i in plan.batches[number]}
    return last.world_size == world_size and assigned.issuperset(left)


def _with_generation(plan: Assignment, left: frozenset[int], costs: Sequence[float], world_size: int) -> Assignment:
    batches = {number: batch for number, batch in enumerate(plan.batches) if left & set(batch)}
    first = max(plan.ranks, default=-1) + 1
    parts = divide(batches, costs, world_size)
    streams = tuple(Stream(rank=first + place, batches=part) for place, part in enumerate(parts))
    generation = Generation(world_size=world_size, streams=streams)
    return Assignment(batches=plan.batches, generations=(*plan.generations, generation))


def write_plan(folder: Path, plan: Assignment) -> None:
    """Write `plan.json` atomically."""
    write_atomic(folder / PLAN_NAME, json.dumps(seal_object(asdict(plan))) + "\n")


def read_plan(folder: Path, n_videos: int) -> Assignment | None:
    """Read `plan.json`; None if there is none.

    Args:
        folder: the store.
        n_videos: number of videos to be collected.

    Raises:
        UserError: the file cannot be read or is damaged, or its batches do not hold every video once.
    """
    path = inside(folder, PLAN_NAME)
    if not path.exists():
        return None
    content: object = read_json(path, DAMAGE_REMEDY)
    if not isinstance(content, dict):
        raise damaged(path, "it is not the JSON that collect writes")
    content = cast("dict[str, Any]", content)
    # Plans of the program's first versions have no checksum; an unknown name may be a damaged `checksum`.
    if object_condition(content) == "changed" or not {"batches", "generations", CHECKSUM} >= content.keys():
        raise damaged(path, "it fails its checksum, so it was changed after it was written")
    fields = Fields(content, printable(path, 4096), DAMAGE_REMEDY)
    batches = _index_lists(fields, "batches")
    if sorted(index for batch in batches for index in batch) != list(range(n_videos)):
        raise fields.error("batches", f"lists that hold each of the {n_videos} videos once")
    generations: list[Generation] = []
    ranks: list[int] = []
    for generation in fields.children("generations"):
        streams = tuple(
            Stream(rank=stream.count("rank"), batches=tuple(stream.array("batches", dtype=np.int64).tolist()))
            for stream in generation.children("streams")
        )
        numbers = [number for stream in streams for number in stream.batches]
        if len(set(numbers)) < len(numbers) or not all(0 <= number < len(batches) for number in numbers):
            raise generation.error("streams", f"streams that share out some of the {len(batches)} batches")
        if generation.count("world_size", least=1) != len(streams):
            raise generation.error("world_size", f"the number of its streams, {len(streams)}")
        ranks += [stream.rank for stream in streams]
        generations.append(Generation(world_size=len(streams), streams=streams))
    if ranks != list(range(len(ranks))):
        raise fields.error("generations", "generations whose ranks count up from 0")
    return Assignment(batches=batches, generations=tuple(generations))


def _index_lists(fields: Fields, name: str) -> tuple[Batch, ...]:
    value: Any = fields.items(name)
    if not all(isinstance(batch, list) and all(type(index) is int for index in batch) for batch in value):
        raise fields.error(name, "a list of lists of whole numbers")
    return tuple(tuple(batch) for batch in value)
