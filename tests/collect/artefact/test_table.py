"""Tables as bytes: damage anywhere is found, and what a schema says of its values is kept."""

import io
import random

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from collect.artefact.table import DamagedTableError, column, from_parquet, to_parquet

SCHEMA = pa.schema(
    [
        column("latent", pa.int32(), least=0),
        column("kind", pa.string(), among=("object", "action")),
        column("label", pa.string(), null=True),
        column("score", pa.float64()),
        column("latents", pa.list_(pa.int64())),
    ]
)
FRAME = pd.DataFrame(
    {
        "latent": range(40),
        "kind": ["object", "action"] * 20,
        "label": ["ball", None] * 20,
        "score": [0.5, float("nan")] * 20,
        "latents": [[1, 2], []] * 20,
    }
)


def test_one_flipped_bit_anywhere_is_found() -> None:
    whole = to_parquet(FRAME, SCHEMA, "t")
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << random.Random(position).randrange(8)
        with pytest.raises(DamagedTableError):
            from_parquet(bytes(damaged), SCHEMA)


def test_a_table_cut_short_or_with_more_behind_it_is_found() -> None:
    whole = to_parquet(FRAME, SCHEMA, "t")
    for data in (b"", whole[:4], whole[: len(whole) // 2], whole[:-1], whole + b"\0"):
        with pytest.raises(DamagedTableError):
            from_parquet(data, SCHEMA)


def test_other_readers_read_it_and_verify_its_pages() -> None:
    data = to_parquet(FRAME, SCHEMA, "t")
    table = pyarrow.parquet.read_table(io.BytesIO(data), page_checksum_verification=True)
    assert table.column("label").to_pylist() == ["ball", None] * 20
    # Without the seal, a page's own checksum finds what was changed in it.
    start = pyarrow.parquet.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0).data_page_offset
    damaged = bytearray(data)
    damaged[start + 60] ^= 1
    with pytest.raises(OSError, match=r"(?i)crc"):
        pyarrow.parquet.read_table(io.BytesIO(damaged), page_checksum_verification=True)


def test_a_table_of_another_program_is_refused() -> None:
    sink = io.BytesIO()
    FRAME.to_parquet(sink)
    with pytest.raises(DamagedTableError, match="no checksum"):
        from_parquet(sink.getvalue(), SCHEMA)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"latent": [-1] * 40}, "`latent` holds -1"),
        ({"kind": ["sound"] * 40}, "`kind` holds 'sound'"),
    ],
)
def test_values_that_the_schema_excludes_are_refused(changed: dict[str, list[object]], reason: str) -> None:
    free = pa.schema([pa.field(field.name, field.type) for field in SCHEMA])
    with pytest.raises(DamagedTableError, match=reason):
        from_parquet(to_parquet(FRAME.assign(**changed), free, "t"), SCHEMA)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (pa.schema([*SCHEMA, column("more", pa.int64())]), "lacks the column `more`"),
        (pa.schema(list(SCHEMA)[1:]), "has a column of its own, `latent`"),
        (pa.schema([column("latent", pa.int64()), *list(SCHEMA)[1:]]), "`latent` holds int32 where int64 is needed"),
        (pa.schema([*list(SCHEMA)[:2], column("label", pa.string()), *list(SCHEMA)[3:]]), "`label` lacks values"),
    ],
)
def test_a_table_of_another_schema_is_refused(schema: pa.Schema, reason: str) -> None:
    with pytest.raises(DamagedTableError, match=reason):
        from_parquet(to_parquet(FRAME, SCHEMA, "t"), schema)


def test_a_missing_value_where_there_must_be_one_is_not_written() -> None:
    with pytest.raises(ValueError, match="non-nullable"):
        to_parquet(FRAME.assign(kind=None), SCHEMA, "t")


def test_a_table_without_rows_keeps_its_types() -> None:
    back = from_parquet(to_parquet(FRAME.iloc[:0], SCHEMA, "t"), SCHEMA)
    assert len(back) == 0
    assert back["latent"].dtype == "int32"
