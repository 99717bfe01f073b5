"""The exported data set: what others read in it is what the run's tables hold, and nothing else is in it."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from collect.artefact.folder import read_object, write_json
from collect.artefact.stage import write_summary
from collect.errors import UserError
from report import dataset
from report.config import ExportConfig, ReportConfig
from report.dataset import SCHEMAS, export
from report.page import report
from tests.small_run import SAE_NAME

STAGES = {"features": f"features/{SAE_NAME}", "steer": f"steer/{SAE_NAME}", "profile": "profile"}


@pytest.fixture(scope="module")
def listed(finished: Path) -> Path:
    """The finished run, whose summaries list the tables, as those of real stages do."""
    for place in STAGES.values():
        content = read_object(finished / place / "summary.json", "")
        content.pop("files")
        write_summary(finished / place, content, [path.name for path in (finished / place).glob("*.parquet")])
    return finished


@pytest.fixture(scope="module")
def exported(listed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(ExportConfig(run=listed, to=("hf", tmp_path_factory.mktemp("exported") / "set")))


@pytest.fixture
def own(listed: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(listed, tmp_path / "own"))


def tables_of(run: Path) -> dict[str, Path]:
    return {path.stem: path for place in STAGES.values() for path in sorted((run / place).glob("*.parquet"))}


def rows_of(path: Path) -> tuple[list[str], int]:
    """Names of the columns and number of rows, as pyarrow says."""
    table = pq.read_table(path)
    return table.schema.names, table.num_rows


def load(folder: Path, name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> datasets.Dataset:
    """A table as `datasets` loads it, without a network."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return datasets.load_dataset(str(folder), name, cache_dir=str(cache))["table"]


def test_every_table_of_the_run_is_there_byte_by_byte(listed: Path, exported: Path) -> None:
    tables = tables_of(listed)
    assert set(tables) == {path.parent.name for path in exported.glob("data/*/table.parquet")}
    assert {"catalogue", "associations", "exemplars", "claims", "profile"} <= set(tables)
    for name, path in tables.items():
        assert (exported / "data" / name / "table.parquet").read_bytes() == path.read_bytes()


def test_datasets_loads_each_table_without_a_network(
    listed: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = {name: path for name, path in tables_of(listed).items() if rows_of(path)[1]}
    assert set(datasets.get_dataset_config_names(str(exported))) == set(filled)
    for name, path in filled.items():
        found = load(exported, name, tmp_path / "cache", monkeypatch)
        expected = pq.read_table(path)
        assert found.num_rows == expected.num_rows
        assert found.features.arrow_schema.remove_metadata() == pa.schema(
            [(field.name, field.type) for field in expected.schema]
        )
        pd.testing.assert_frame_equal(found.to_pandas(), expected.to_pandas())
    first = datasets.load_dataset(str(exported), cache_dir=str(tmp_path / "cache"))["table"]
    assert first.num_rows == rows_of(tables_of(listed)["catalogue"])[1]


@pytest.mark.parametrize("place", ["run", "export"])
def test_pandas_polars_and_duckdb_read_each_table(place: str, listed: Path, exported: Path) -> None:
    for name, source in tables_of(listed).items():
        path = source if place == "run" else exported / "data" / name / "table.parquet"
        names, n_rows = rows_of(source)
        frame = pd.read_parquet(path)
        assert (list(frame.columns), len(frame)) == (names, n_rows)
        lazy = pl.read_parquet(path)
        assert (lazy.columns, lazy.height) == (names, n_rows)
        relation = duckdb.connect().sql(f"SELECT * FROM '{path}'")
        assert (relation.columns, len(relation.fetchall())) == (names, n_rows)
        for field in pq.read_schema(source):
            assert lazy.schema[field.name] == POLARS[str(field.type)]
            assert str(relation.types[relation.columns.index(field.name)]) == DUCKDB[str(field.type)]


POLARS = {
    "int32": pl.Int32,
    "int64": pl.Int64,
    "float": pl.Float32,
    "double": pl.Float64,
    "bool": pl.Boolean,
    "string": pl.String,
    "list<element: int64>": pl.List(pl.Int64),
    "list<element: double>": pl.List(pl.Float64),
    "list<element: string>": pl.List(pl.String),
}
DUCKDB = {
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
    "list<element: int64>": "BIGINT[]",
    "list<element: double>": "DOUBLE[]",
    "list<element: string>": "VARCHAR[]",
}


@pytest.mark.parametrize("name", ["catalogue", "claims"])
def test_datasets_loads_the_tables_of_the_run_as_they_are(name: str, listed: Path, tmp_path: Path) -> None:
    path = tables_of(listed)[name]
    found = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path))["train"]
    assert (found.column_names, found.num_rows) == rows_of(path)


def test_the_card_describes_every_table_and_column(listed: Path, exported: Path) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert [each["config_name"] for each in matter["configs"]] == [
        name
        for schemas in SCHEMAS.values()
        for name in schemas
        if name in tables_of(listed) and rows_of(tables_of(listed)[name])[1]
    ]
    assert "`datasets` loads no table without rows, which here is `effects`" in body
    assert [each.get("default") for each in matter["configs"]].count(True) == 1
    for schemas in SCHEMAS.values():
        for name, schema in schemas.items():
            if name not in tables_of(listed):
                continue
            section = re.search(rf"^### `{name}`$(.*?)(?=^##|\Z)", body, re.MULTILINE | re.DOTALL)
            assert section is not None
            rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", section[1], re.MULTILINE)
            assert [column for column, _ in rows] == schema.names
            assert all(meaning.strip() for _, meaning in rows)
    assert "video-sae features --run RUN" in body
    assert "video-sae steer --run RUN" in body


def test_nothing_names_a_folder_of_this_machine(listed: Path, exported: Path) -> None:
    for path in exported.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for folder in (listed, listed.parent, Path.home(), exported):
                assert str(folder).encode() not in content, path


def test_a_finished_export_does_nothing_and_an_interrupted_one_goes_on_to_the_same_bytes(
    listed: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in exported.rglob("*")}
    assert export(ExportConfig(run=listed, to=("hf", exported))) == exported
    assert {path: path.stat().st_mtime_ns for path in exported.rglob("*")} == before

    again = ExportConfig(run=listed, to=("hf", tmp_path / "again"))
    copied = dataset._copied
    calls: list[str] = []

    def interrupt(*arguments: Any) -> Any:
        calls.append("")
        if len(calls) == 4:
            raise KeyboardInterrupt
        return copied(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("report.dataset._copied", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export(again)
    assert not (tmp_path / "again" / "summary.json").exists()
    export(again)
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (exported, tmp_path / "again")
    ]
    assert contents[0] == contents[1]


def test_a_folder_with_something_else_is_left_alone(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty and no export .*'thesis\.tex'.*: give a folder"):
        export(ExportConfig(run=listed, to=("hf", tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="belongs to the stage 'features' where 'export' is needed"):
        export(ExportConfig(run=listed, to=("hf", listed / STAGES["features"])))


def test_a_clone_of_an_empty_repository_is_empty(listed: Path, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitattributes").write_text("*.parquet filter=lfs\n")
    export(ExportConfig(run=listed, to=("hf", tmp_path)))
    assert (tmp_path / "README.md").is_file()


def test_another_export_in_the_same_folder_is_refused(exported: Path, own: Path) -> None:
    path = own / STAGES["profile"] / "profile.parquet"
    path.unlink()
    content = read_object(path.parent / "summary.json", "")
    content.pop("files")
    write_summary(path.parent, content, ["config.json"])
    with pytest.raises(UserError, match="was begun with other settings, input profile"):
        export(ExportConfig(run=own, to=("hf", exported)))


def test_what_is_not_finished_or_was_changed_is_not_exported(own: Path, tmp_path: Path) -> None:
    target = tmp_path / "set"
    claims = own / STAGES["steer"] / "claims.parquet"
    kept = claims.read_bytes()
    claims.write_bytes(kept[:-1])
    with pytest.raises(UserError, match=r"claims\.parquet.*cannot be read|run `video-sae steer` again"):
        export(ExportConfig(run=own, to=("hf", target)))
    claims.write_bytes(kept)
    (own / STAGES["steer"] / "summary.json").unlink()
    export(ExportConfig(run=own, to=("hf", target)))
    assert "claims" not in {path.name for path in (target / "data").iterdir()}
    (own / STAGES["features"] / "summary.json").unlink()
    with pytest.raises(UserError, match="no catalogue to export: run `video-sae features` first"):
        export(ExportConfig(run=own, to=("hf", tmp_path / "other")))
    assert not (tmp_path / "other").exists()


def test_tables_of_an_earlier_sae_are_not_exported(own: Path, tmp_path: Path) -> None:
    config = own / STAGES["features"] / "config.json"
    content = read_object(config, "")
    write_json(config, {**content, "inputs": {**content["inputs"], "sae": "0" * 64}})
    with pytest.raises(UserError, match="was made with another SAE than the one that is in"):
        export(ExportConfig(run=own, to=("hf", tmp_path / "set")))
    assert not (tmp_path / "set").exists()
    with pytest.raises(UserError, match="was made with another SAE than the one that is in"):
        report(ReportConfig(run=own))


def licence_line(folder: Path) -> str | None:
    front = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)[1]
    return yaml.safe_load(front).get("license")


def test_the_licence_is_said_where_it_is_known_and_asked_for_where_it_is_not(
    own: Path, data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def exported_to(name: str, **options: str) -> Path:
        return export(ExportConfig(run=own, to=("hf", tmp_path / name), **options))

    assert licence_line(exported_to("unknown")) is None
    assert "--data-licence" in caplog.text
    assert "**Not stated.**" in (tmp_path / "unknown" / "README.md").read_text(encoding="utf-8")
    assert licence_line(exported_to("given", data_licence="cc-by-nc-4.0")) == "cc-by-nc-4.0"

    data = tmp_path / "downloaded"
    shutil.copytree(data_folder, data)
    (data / "download.json").write_text(json.dumps({"format": "video-sae download", "version": 1, "files": {}}))
    config = own / STAGES["features"] / "config.json"
    write_json(config, {**read_object(config, ""), "paths": {"data": str(data)}})
    assert licence_line(exported_to("benchmark")) == "cc-by-4.0"
    assert "Perception Test (Google DeepMind)" in (tmp_path / "benchmark" / "README.md").read_text(encoding="utf-8")
    (data / "download.json").unlink()
    write_json(data / "config.json", {"stage": "world", "arguments": {}, "inputs": {}})
    assert licence_line(exported_to("demo")) == "apache-2.0"


def test_a_licence_that_the_hub_would_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not written as on the hub"):
        ExportConfig(run=tmp_path, to=("hf", tmp_path / "set"), data_licence="CC BY 4.0\nconfigs: []")
