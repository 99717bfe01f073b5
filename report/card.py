"""The card of an exported data set: its front matter for the hub, and what its tables and columns are.

What columns mean is what their schemas say, so that the card cannot differ from the tables. Commands stand there
without the folders of the machine that they ran on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import pyarrow as pa

from collect.printable import printable
from report.page import data_facts, is_demo
from report.record import Record, Stage
from report.reproduction import command, provenance

SPLIT = "table"
"""Name that `datasets` has for the rows of a table: each has train and held-out rows, as its columns say."""
BENCHMARK = "Pătrăucean et al., *Perception Test: A Diagnostic Benchmark for Multimodal Video Models*, 2023"
CAVEAT = (
    "Everything was chosen on the train videos and is reported on the held-out ones. An association says that a latent "
    "goes along with a label, not that the model uses it. What editing latents does to the answers is in the tables of "
    "`steer`, if they are here."
)
NO_FRAMES = (
    "The tables hold no frame of a video and no weight of a model. What may be done with results of the model is a "
    "matter of the model's own licence."
)
_FOLDERS = {"run": "RUN", "out": "RUN", "data": "DATA", "model": None, "sae": None, "baseline": None}
"""Arguments that name folders, and what stands for them; None where the last name does."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the data set."""

    name: str
    stage: str
    """The stage that made it."""
    place: str
    """Its file within the data set."""
    n_rows: int
    schema: pa.Schema


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the videos and annotations are from."""

    name: str | None
    """None where nothing says so."""
    licence: str | None
    """As the hub writes it; None where nobody has said."""


def card(record: Record, tables: Sequence[Table], origin: Origin) -> str:
    """The text of the card."""
    parts = [front_matter(record, tables, origin), _beginning(record), _opening(tables), _tables(tables)]
    parts += [_columns(table) for table in tables]
    parts += [_licences(origin), _making(record), _citing(record, origin)]
    return "\n\n".join(parts) + "\n"


def front_matter(record: Record, tables: Sequence[Table], origin: Origin) -> str:
    """YAML between dashes; every text in it is a JSON string, which is YAML too."""
    lines = ["---", f"pretty_name: {json.dumps(_title(record))}"]
    if origin.licence is not None:
        lines.append(f"license: {json.dumps(origin.licence)}")
    lines += ["tags:", *(f"- {tag}" for tag in ("interpretability", "sparse-autoencoder", "video", "video-sae"))]
    lines.append("configs:")
    for number, table in enumerate(table for table in tables if table.n_rows):  # `datasets` loads none without rows
        lines += [f"- config_name: {table.name}", "  data_files:", f"  - split: {SPLIT}", f"    path: {table.place}"]
        lines += ["  default: true"] if number == 0 else []
    return "\n".join([*lines, "---"])


def _title(record: Record) -> str:
    return f"Latents of {printable(record.sae_name, 200)}"


def _beginning(record: Record) -> str:
    facts = data_facts(record)
    lines = [f"# {_title(record)}", ""]
    if facts is None:
        lines.append(f"What the latents of the sparse autoencoder {_code(record.sae_name)} go along with.")
    else:
        model = facts["model"]
        lines.append(
            f"What the latents of the sparse autoencoder {_code(record.sae_name)} go along with in "
            f"{facts['n_videos']:,} videos, {facts['n_held_out']:,} of them held out. It was trained on the residuals "
            f"of the visual tokens of {_model(record, str(model['name']))} ({printable(model['family'], 80)}, "
            f"{model['n_layers']} layers)."
        )
    return "\n".join([*lines, "", CAVEAT])


def _model(record: Record, name: str) -> str:
    """The model's name on the hub, or the last name of its folder."""
    if is_demo(record):
        return "the small model of `video-sae demo`"
    return _code(PurePath(name).name if PurePath(name).is_absolute() else name)


def _opening(tables: Sequence[Table]) -> str:
    first = tables[0]
    return f"""## How to open it

```python
from datasets import load_dataset
import pandas, polars, duckdb

load_dataset("DIR", "{first.name}")["{SPLIT}"]
pandas.read_parquet("DIR/{first.place}")
polars.read_parquet("DIR/{first.place}")
duckdb.sql("SELECT * FROM 'DIR/{first.place}'")
```

DIR is this folder, or for `load_dataset` also its name on the hub. `{SPLIT}` is all there is of each table: its rows on
train and on held-out videos are told apart by its columns `split` or `held_out`."""


def _tables(tables: Sequence[Table]) -> str:
    lines = ["## Tables", "", "| table | made by | rows | what it holds |", "|---|---|---|---|"]
    for table in tables:
        purpose = (table.schema.metadata or {}).get(b"doc", b"").decode()
        lines.append(f"| `{table.name}` | `{table.stage}` | {table.n_rows:,} | {_cell(purpose)} |")
    empty = [f"`{table.name}`" for table in tables if not table.n_rows]
    if empty:
        lines += ["", f"`datasets` loads no table without rows, which here is {', '.join(empty)}; the others open it."]
    return "\n".join(lines)


def _columns(table: Table) -> str:
    lines = [f"### `{table.name}`", "", "| column | type | meaning |", "|---|---|---|"]
    for field in table.schema:
        meaning = (field.metadata or {}).get(b"doc", b"").decode()
        lines.append(f"| `{field.name}` | {field.type} | {_cell(meaning)} |")
    return "\n".join(lines)


def _licences(origin: Origin) -> str:
    licence = None if origin.licence is None else _code(origin.licence)
    lines = ["## Licence", ""]
    if origin.name == "Perception Test":
        lines.append(
            "The videos and annotations are those of Perception Test (Google DeepMind), which are under CC-BY 4.0: "
            "whoever passes these tables on has to name it."
        )
    elif origin.name is not None:
        lines.append(f"The videos and annotations are those of {origin.name}, which is under {licence}.")
    elif licence is not None:
        lines.append(f"The videos and their annotations are under {licence}, as whoever exported the tables has said.")
    else:
        lines.append(
            "**Not stated.** Names of objects and events, questions and video ids in these tables are from annotations "
            "of which this program does not know the licence. State it before you publish the tables: export them "
            "again with `--data-licence`."
        )
    return "\n".join([*lines, "", NO_FRAMES])


def _making(record: Record) -> str:
    """Versions, and the commands that make the tables again."""
    stages = [stage for stage in record.stages if stage.finished and stage.config]
    lines = ["## How it was made, and how to make it again", ""]
    lines += [f"- {printable(name, 60)}: {printable(value, 400)}" for name, value in provenance(stages)]
    lines += ["", "RUN is the run folder, DATA the folder of the videos and annotations.", "", "```"]
    lines += [printable(command(_without_folders(stage)), 4000).replace("```", "'''") for stage in stages]
    lines += [f"video-sae export --run RUN --sae {printable(record.sae_name, 200)} --to hf DIR", "```"]
    return "\n".join(lines)


def _without_folders(stage: Stage) -> Stage:
    """The stage with other words for the folders of this machine."""
    arguments: dict[str, Any] = dict(stage.config["arguments"])
    for name, word in _FOLDERS.items():
        value = arguments.get(name)
        if isinstance(value, str):
            arguments[name] = word or (PurePath(value).name if PurePath(value).is_absolute() else value)
    config: Mapping[str, Any] = {**stage.config, "arguments": arguments}
    return dataclasses.replace(stage, config=config)


def _citing(record: Record, origin: Origin) -> str:
    config = record.stage("features").config
    version = config.get("versions", {}).get("video-sae")
    commit = config.get("commit")
    made = f"video-sae {printable(version or '(version unknown)', 60)}"
    made += f", commit {_code(commit)}" if commit else ""
    lines = ["## How to cite it", "", f"Made with {made}."]
    if origin.name == "Perception Test":
        lines.append(f"The videos and annotations: {BENCHMARK}.")
    return "\n".join(lines)


def _code(text: object) -> str:
    return f"`{printable(text, 200).replace('`', '’')}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
