"""The entries of one part of one video, from all files that have some: which there are, and what their ids are."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar, cast, get_args

from collect.artefact.json_fields import Fields
from collect.data.annotation import Question, RawSegment, RawTrack
from collect.data.annotation_files import Source
from collect.data.annotation_units import BoxFormat, BoxUnit, TimeUnit
from collect.data.findings import Findings
from collect.errors import UserError

Read = TypeVar("Read", RawTrack, RawSegment, Question)


class Said(NamedTuple):
    """The units that a video's metadata state in one file."""

    unit: BoxUnit | None = None
    format: BoxFormat | None = None
    time: TimeUnit | None = None


class Entry(NamedTuple):
    """One entry of a part."""

    file: Path | str
    video_id: str
    id: int
    fields: Fields
    said: Said


def said_units(fields: Fields) -> Said:
    """Read the units that `metadata` state, if they do."""
    if not fields.has("metadata"):
        return Said()
    metadata = fields.child("metadata")
    kinds = (("box_unit", BoxUnit), ("box_format", BoxFormat), ("time_unit", TimeUnit))
    values = [metadata.choice(name, get_args(kind)) if metadata.has(name) else None for name, kind in kinds]
    return Said(
        cast("BoxUnit | None", values[0]), cast("BoxFormat | None", values[1]), cast("TimeUnit | None", values[2])
    )


def entries(part: str, sources: Sequence[Source], findings: Findings) -> list[Entry]:
    """The entries that several files have of one part of one video.

    An entry without an id gets the smallest number that is free, which in a single file is its position.
    """
    found: list[Entry] = []
    for source in sources:
        try:
            said, records = said_units(source.fields), list(source.fields.children(part))
            named = [record.integer("id", or_text=True) if record.has("id") else None for record in records]
        except UserError as error:
            findings.fault(error)
            continue
        earlier = {entry.id: entry for entry in found}
        taken = earlier.keys() | {number for number in named if number is not None}
        own: dict[int, Fields] = {}
        for position, (record, number) in enumerate(zip(records, named, strict=True)):
            if number is None and any(record.equals(entry.fields) for entry in earlier.values()):
                continue
            if number is None:
                number = position if position not in taken else next(i for i in range(len(taken) + 1) if i not in taken)
                taken |= {number}
            elif number in own:
                findings.refuse(
                    record.place,
                    f"its id is that of another entry of `{part}`",
                    "give each an id of its own",
                    str(number),
                )
                continue
            elif number in earlier:
                if not record.equals(earlier[number].fields):
                    findings.fault(record.conflict(earlier[number].fields))
                continue
            own[number] = record
            found.append(Entry(source.file, source.video_id, number, record, said))
    return found


def read_each(found: Sequence[Entry], read: Callable[[Entry], Read], findings: Findings) -> list[tuple[Entry, Read]]:
    """Read entries one by one; those that cannot be read are reported."""
    read_ones: list[tuple[Entry, Read]] = []
    for entry in found:
        try:
            read_ones.append((entry, read(entry)))
        except UserError as error:
            findings.fault(error)
    return read_ones
