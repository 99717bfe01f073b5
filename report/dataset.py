"""`video-sae export`: the tables of a run as a data set that `datasets`, pandas, polars and DuckDB open.

    DIR/README.md                      the card: what every table and column is, licences, how it was made
    DIR/data/TABLE/table.parquet       each table as its stage wrote it, byte by byte
    DIR/config.json summary.json

`datasets.load_dataset(DIR, TABLE)` needs no network: the front matter of the card says which file is which table. The
folder is written like that of any stage: an interrupted export goes on, and a folder that holds anything else is left
alone. It has no path of this machine in it and no frame of any video, so that it may be published.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from ask.opened import stages_of
from ask.reading import PROFILE
from collect.artefact.config_json import read_config
from collect.artefact.folder import CONFIG_NAME, file_hash, read_object, write_atomic
from collect.artefact.json_file import read_bytes
from collect.artefact.lock import LOCK_SUFFIX, writing
from collect.artefact.run_data import check_agreement, recorded_path
from collect.artefact.stage import SUMMARY_NAME, begin_or_resume, is_finished, write_summary
from collect.artefact.table_input import read_found_table
from collect.download.run import FORMAT, RECORD_NAME
from collect.errors import UserError
from collect.printable import printable
from features.reading import EVERY_SCHEMA as FEATURES_SCHEMAS
from report.card import Origin, Table, card
from report.config import ExportConfig
from report.record import Record, Stage, read_record
from steer.reading import EVERY_SCHEMA
from train_sae.reading import check_same_sae

log = logging.getLogger(__name__)

STAGE = "export"
CARD_NAME = "README.md"
SCHEMAS: Mapping[str, Mapping[str, pa.Schema]] = {
    "features": FEATURES_SCHEMAS,
    "steer": EVERY_SCHEMA,
    "profile": {"profile": PROFILE},
}
"""Schemas of all tables by stage, in the order of the card."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A table of the run and its place in the data set."""

    name: str
    stage: str
    path: Path
    schema: pa.Schema

    @property
    def place(self) -> str:
        return f"data/{self.name}/table.parquet"


def export(config: ExportConfig) -> Path:
    """Write the data set, or go on with it, and return its folder.

    Raises:
        UserError: the features stage is not finished, a finished stage was changed, two stages took other annotations,
            one is about another SAE than the one that is there now, the folder holds something else or an export of
            other tables, or another process is writing it.
    """
    folder = config.to[1]
    _require_ours(folder)
    record = read_record(config.run, config.sae)
    sources = [source for stage in SCHEMAS for source in _tables_of(record.stage(stage))]
    assert record.sae_name is not None, "the features stage is that of an SAE"
    stages = stages_of(config.run, record.sae_name)
    check_agreement(config.run, stages)
    check_same_sae(config.run, stages)
    origin = _origin(record, config.data_licence)
    with writing(folder):
        _require_ours(folder)
        # Not the arguments themselves, which name folders of this machine.
        arguments = {"sae": record.sae_name, "data_licence": config.data_licence}
        if begin_or_resume(folder, STAGE, arguments, {source.name: file_hash(source.path) for source in sources}):
            return folder
        tables = [_copied(source, folder) for source in sources]
        write_atomic(folder / CARD_NAME, card(record, tables, origin))
        files = [CARD_NAME, *(table.place for table in tables)]
        write_summary(folder, {"n_rows": {table.name: table.n_rows for table in tables}}, files)
    if origin.licence is None:
        log.warning(
            "%s does not say under which licence the videos and their annotations are: say it with --data-licence "
            "before you publish it.",
            folder / CARD_NAME,
        )
    return folder


def _tables_of(stage: Stage) -> list[_Source]:
    """The tables of a finished stage; none of one that is not finished, which only features has to be."""
    again = f"run `video-sae {stage.name}` again"
    if not stage.finished:
        if stage.name == "features":
            raise UserError(
                f"{printable(stage.folder, 4096)} is not finished, so there is no catalogue to export: "
                "run `video-sae features` first."
            )
        log.info("The stage %s is %s, so its tables are left out.", stage.name, stage.state)
        return []
    if not is_finished(stage.folder):
        raise UserError(f"{printable(stage.folder, 4096)} is not as it was when it was finished: {again}.")
    made = read_object(stage.folder / SUMMARY_NAME, again)["files"]
    return [
        _Source(name=name, stage=stage.name, path=stage.folder / f"{name}.parquet", schema=schema)
        for name, schema in SCHEMAS[stage.name].items()
        if f"{name}.parquet" in made
    ]


def _copied(source: _Source, folder: Path) -> Table:
    """Copy a table as it is, after it was checked against its schema."""
    frame = read_found_table(source.path.parent, source.name, source.schema)
    assert frame is not None, "the stage is finished, so its tables are there"
    place = folder / source.place
    if not place.is_file() or file_hash(place) != file_hash(source.path):
        write_atomic(place, read_bytes(source.path, f"run `video-sae {source.stage}` again"))
    return Table(
        name=source.name,
        stage=source.stage,
        place=source.place,
        n_rows=pyarrow.parquet.read_metadata(place).num_rows,
        schema=source.schema,
    )


def _require_ours(folder: Path) -> None:
    """Check that a folder is new, empty or an export; what is hidden, such as `.git` of a clone, is no content.

    Raises:
        UserError: it holds something else.
    """
    if not folder.is_dir():
        return  # a file in its place is refused when the folder is made
    if (folder / CONFIG_NAME).exists():
        read_config(folder, STAGE)  # refuses that of another stage
        return
    found = sorted(path.name for path in folder.iterdir())
    other = [name for name in found if not name.startswith(".") and not name.endswith(LOCK_SUFFIX)]
    if other:
        raise UserError(
            f"{printable(folder, 4096)} is not empty and no export of this program (it holds "
            f"'{printable(other[0], 200)}'): give a folder that is new or empty."
        )


def _origin(record: Record, licence: str | None) -> Origin:
    """Where the videos and annotations are from, as far as their folder says so."""
    stage = record.stage("features")
    data = recorded_path(stage.folder, "features", "data", record.run)
    if data is not None and (data / RECORD_NAME).is_file():
        remedy = f"run `video-sae download --out {data}` again"
        if read_object(data / RECORD_NAME, remedy).get("format") == FORMAT:
            return Origin(name="Perception Test", licence=licence or "cc-by-4.0")
    if data is not None and (data / CONFIG_NAME).is_file():
        made_by = read_object(data / CONFIG_NAME, "run `video-sae demo` again").get("stage")
        if made_by == "world":
            return Origin(name="the synthetic world of `video-sae demo`", licence=licence or "apache-2.0")
    return Origin(name=None, licence=licence)
