"""docs/formats.md is normative, so its tables must say what the schemas in the code say."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from ask import tables as asked
from features import catalogue
from steer import tables

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "formats.md").read_text(encoding="utf-8")
SCHEMAS = {
    "catalogue": catalogue.CATALOGUE,
    "associations": catalogue.ASSOCIATIONS,
    "exemplars": catalogue.EXEMPLARS,
    "items": asked.ITEMS,
    "baselines": asked.BASELINES,
    "screen": tables.SCREEN,
    "sweep": tables.SWEEP,
    "latent_subjects": tables.LATENT_SUBJECTS,
    "targets": tables.TARGETS,
    "effects": tables.EFFECTS,
    "controls": tables.CONTROLS,
    "target_subjects": tables.TARGET_SUBJECTS,
    "summary": tables.SUMMARY,
    "claims": tables.CLAIMS,
    "dissociations": tables.DISSOCIATIONS,
    "profile": asked.PROFILE,
}


def documented_columns(table: str) -> list[tuple[str, str]]:
    """Names and types in the section of one table, in order."""
    section = re.search(rf"^### `{table}\.parquet`$(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/formats.md has no section for {table}.parquet"
    return re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", section[1], re.MULTILINE)


def type_name(kind: pa.DataType) -> str:
    return f"list<{kind.value_type}>" if pa.types.is_list(kind) else str(kind)


@pytest.mark.parametrize("table", SCHEMAS)
def test_documented_columns_are_those_of_the_schema(table: str) -> None:
    assert documented_columns(table) == [(field.name, type_name(field.type)) for field in SCHEMAS[table]]


def test_every_documented_table_has_a_schema() -> None:
    assert sorted(re.findall(r"^### `(\w+)\.parquet`$", PAGE, re.MULTILINE)) == sorted(SCHEMAS)
