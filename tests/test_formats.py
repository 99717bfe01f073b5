"""docs/formats.md is normative, so its tables must say what the schemas in the code say."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from ask import tables as asked
from features import catalogue, moments
from features.combinations import combine
from features.labels import brightness
from steer import tables
from steer.mechanism.tables import MECHANISM_TABLES, MECHANISMS
from train_sae.quality.comparison import COMPARISON

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "formats.md").read_text(encoding="utf-8")
SCHEMAS = {
    "comparison": COMPARISON,
    "catalogue": catalogue.CATALOGUE,
    "associations": catalogue.ASSOCIATIONS,
    "exemplars": catalogue.EXEMPLARS,
    "combinations": combine.COMBINATIONS,
    "brightness": brightness.BRIGHTNESS,
    "moments": moments.MOMENTS,
    "items": asked.ITEMS,
    "baselines": asked.BASELINES,
    "screen": tables.SCREEN,
    "sweep": tables.SWEEP,
    "screens": tables.SCREENS,
    "latent_subjects": tables.LATENT_SUBJECTS,
    "targets": tables.TARGETS,
    "effects": tables.EFFECTS,
    "controls": tables.CONTROLS,
    "target_subjects": tables.TARGET_SUBJECTS,
    "summary": tables.SUMMARY,
    "claims": tables.CLAIMS,
    "dissociations": tables.DISSOCIATIONS,
    "profile": asked.PROFILE,
    **MECHANISM_TABLES,
    "mechanisms": MECHANISMS,
}


def section_of(table: str) -> str:
    """What the page says about one table."""
    section = re.search(rf"^### `{table}\.parquet`$(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/formats.md has no section for {table}.parquet"
    return section[1]


def documented_columns(table: str) -> list[tuple[str, str]]:
    """Names and types in the section of one table, in order."""
    return re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", section_of(table), re.MULTILINE)


def type_name(kind: pa.DataType) -> str:
    return f"list<{kind.value_type}>" if pa.types.is_list(kind) else str(kind)


@pytest.mark.parametrize("table", SCHEMAS)
def test_documented_columns_are_those_of_the_schema(table: str) -> None:
    assert documented_columns(table) == [(field.name, type_name(field.type)) for field in SCHEMAS[table]]


@pytest.mark.parametrize("table", SCHEMAS)
def test_documented_meanings_are_those_of_the_schema(table: str) -> None:
    schema, section = SCHEMAS[table], section_of(table)
    meanings = re.findall(r"^\| `\w+` \| [^|]+? \| (.+) \|$", section, re.MULTILINE)
    said = [(field.metadata or {}).get(b"doc", b"").decode() for field in schema]
    assert [meaning.replace("\\|", "|") for meaning in meanings] == said
    assert " ".join(section.split()).startswith((schema.metadata or {})[b"doc"].decode())


def test_every_documented_table_has_a_schema() -> None:
    assert sorted(re.findall(r"^### `(\w+)\.parquet`$", PAGE, re.MULTILINE)) == sorted(SCHEMAS)


@pytest.mark.parametrize("table", SCHEMAS)
def test_what_may_be_null_says_so(table: str) -> None:
    """Fractions and lists may be null everywhere; of other columns the page has to say it."""
    silent = [
        field.name
        for field in SCHEMAS[table]
        if field.nullable
        and not (pa.types.is_floating(field.type) or pa.types.is_list(field.type))
        and b"null" not in (field.metadata or {}).get(b"doc", b"")
    ]
    assert silent == []
