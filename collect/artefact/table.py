"""Parquet tables as bytes: what `collect.artefact.folder` writes and reads.

A table has a seal over all of its bytes (`collect.artefact.seal`) in its key-value metadata. It also has a checksum per
page, which other readers verify too. Reading checks both, then the names and types of the columns, and then the
rules that the schema states: whether a value may be missing, the smallest one, the words that a text may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from collect.artefact.seal import BLANK, condition, seal
from collect.printable import printable

if TYPE_CHECKING:
    import pandas
    import pyarrow

SEAL_KEY = "video-sae.seal"
_LEAST, _AMONG = b"least", b"among"


class DamagedTableError(ValueError):
    """A table that cannot be trusted; the message is the reason, as part of a sentence."""


def column(
    name: str,
    kind: pyarrow.DataType,
    doc: str = "",
    *,
    null: bool | None = None,
    least: int | None = None,
    among: Sequence[str] = (),
) -> pyarrow.Field:
    """A column of a schema with the rules that its values keep.

    Args:
        name: of the column.
        kind: its type.
        doc: what it holds.
        null: whether a value may be missing; by default in numbers with a fraction and in lists only.
        least: smallest value.
        among: all values that a text may have.
    """
    import pyarrow

    may_lack = pyarrow.types.is_floating(kind) or pyarrow.types.is_list(kind) if null is None else null
    notes = {"doc": doc} if doc else {}
    if least is not None:
        notes["least"] = str(least)
    if among:
        notes["among"] = ",".join(among)
    return pyarrow.field(name, kind, nullable=may_lack, metadata=notes or None)


def table_schema(purpose: str, *columns: pyarrow.Field) -> pyarrow.Schema:
    """A schema that says what its table holds."""
    import pyarrow

    return pyarrow.schema(columns, metadata={"doc": purpose})


def joined_rows(frames: Iterable[pandas.DataFrame], schema: pyarrow.Schema) -> pandas.DataFrame:
    """The rows of several frames, one after the other; where there are none, the schema's columns without rows."""
    import pandas

    filled = [frame for frame in frames if len(frame)]
    return pandas.concat(filled, ignore_index=True) if filled else pandas.DataFrame(columns=schema.names)


def to_parquet(frame: pandas.DataFrame, schema: pyarrow.Schema, name: str) -> bytes:
    """The bytes of a table; the same frame gives the same ones.

    Args:
        frame: one row per fact; its columns are those of the schema, in any order, and its index is left out.
        schema: names, types and rules of the columns.
        name: of the table, for the message of a failed assertion.
    """
    import pyarrow
    import pyarrow.parquet

    columns = [str(column) for column in frame.columns]
    assert sorted(columns) == sorted(schema.names), (
        f"{name}: columns {sorted(set(columns) ^ set(schema.names))} are in the frame or the schema only"
    )
    table = pyarrow.Table.from_pandas(frame, schema=schema, preserve_index=False)
    table = table.replace_schema_metadata(schema.metadata)  # pandas' own metadata names its version
    sink = pyarrow.BufferOutputStream()
    with pyarrow.parquet.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({SEAL_KEY: BLANK.decode()})
    return seal(sink.getvalue().to_pybytes())


def from_parquet(data: bytes, schema: pyarrow.Schema | None) -> pandas.DataFrame:
    """The table in some bytes.

    Args:
        data: content of the file.
        schema: what it has to be; None if any table will do.

    Raises:
        DamagedTableError: it is not a table, was changed after it was written, or does not have this schema.
    """
    import pyarrow
    import pyarrow.parquet

    match condition(data):
        case "changed":
            raise DamagedTableError("its checksum does not match: it was changed after it was written")
        case "unsealed":
            raise DamagedTableError("it has no checksum: it is damaged, or another program or version wrote it")
        case "whole":
            pass
    try:
        table: pyarrow.Table = pyarrow.parquet.read_table(
            pyarrow.BufferReader(data), page_checksum_verification=True, partitioning=None
        )
        if schema is not None:
            _check(table, schema)
        return table.to_pandas()
    except DamagedTableError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
        raise DamagedTableError(printable(str(error).partition("\n")[0] or repr(error), 160)) from None


def _check(table: pyarrow.Table, schema: pyarrow.Schema) -> None:
    for name in dict.fromkeys([*schema.names, *table.schema.names]):
        if name not in schema.names or table.schema.names.count(name) != 1:
            where = "lacks the column" if name in schema.names else "has a column of its own,"
            raise DamagedTableError(f"it {where} `{printable(name, 60)}`")
        wanted, found = schema.field(name), table.schema.field(name)
        if not found.type.equals(wanted.type):
            raise DamagedTableError(f"its column `{name}` holds {found.type} where {wanted.type} is needed")
        _check_values(table.column(name), wanted)


def _check_values(values: Any, field: pyarrow.Field) -> None:
    from pyarrow import compute

    if not field.nullable and values.null_count:
        raise DamagedTableError(f"its column `{field.name}` lacks values")
    notes = field.metadata or {}
    if _LEAST in notes and len(values):
        lowest = compute.min(values).as_py()
        if lowest is not None and lowest < int(notes[_LEAST]):
            raise DamagedTableError(f"its column `{field.name}` holds {lowest}")
    if _AMONG in notes:
        allowed = {*notes[_AMONG].decode().split(","), None}
        for value in compute.unique(values).to_pylist():
            if value not in allowed:
                raise DamagedTableError(f"its column `{field.name}` holds {printable(value, 60)!r}")
