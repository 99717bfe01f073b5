"""The runs on the held-out videos: each target beside its controls, each leaving its rows when it is done.

parts/HASH-controls.parquet, parts/HASH-effects.parquet   the rows of one target; the latter is written last
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from ask.inference import video_means
from ask.questions import Item
from collect.artefact.folder import read_table, write_table
from collect.artefact.table import joined_rows
from collect.errors import UserError
from collect.printable import printable
from steer.codes import CodedCases
from steer.config import SteerConfig
from steer.edits.surroundings import Surroundings
from steer.effects import ControlSums, Editor, draw_controls, effects, touches
from steer.evidence.stopping import is_closed
from steer.tables import CONTROLS, EFFECTS
from steer.targets import Target

logger = logging.getLogger(__name__)

CONTROLS_AT_ONCE = 15
"""Controls of one round, after which it is seen whether more can change the decision."""


def run_targets(
    folder: Path,
    editor: Editor,
    cases: CodedCases,
    items: Sequence[Item],
    chosen: Sequence[Target],
    config: SteerConfig,
) -> None:
    """Run the targets that have no part yet on the held-out videos, and leave a part for each."""
    parts = folder / "parts"
    held_out = [item for item in items if item.held_out]
    videos = [video_id for video_id in cases.cases.videos if cases.cases.items(video_id)[0].held_out]
    operations = config.parsed_operations
    surroundings = Surroundings(cases, held_out)
    left = [target for target in chosen if not _is_run(parts, target)]
    if len(left) < len(chosen):
        logger.info("%d of %d targets are already run", len(chosen) - len(left), len(chosen))
    with tqdm(total=len(left) * len(videos), desc="exact", unit="video") as progress:
        n_effects, started = 0, progress.format_dict["elapsed"]

        def tell(new: int, name: str) -> None:
            nonlocal n_effects
            n_effects += new
            elapsed = progress.format_dict["elapsed"] - started
            shown = f"{n_effects / max(elapsed, 1e-9):.0f} effects/s, {printable(name, 40)}"
            progress.set_postfix_str(shown, refresh=False)

        for target in left:
            rows: list[dict[str, Any]] = []
            for video_id in videos:
                case, codes = cases[video_id]
                if any(touches(codes, target, operation) for operation in operations):
                    new = effects(editor, case, codes, target, operations, surroundings.of(video_id, target))
                    tell(len(new), target.id)
                    rows += new
                progress.update()
            matched = [item for item in held_out if item.subject == target.subject]
            sums = ControlSums.start(target, operations, draw_controls(editor, target, config.controls, config.seed))
            for number in run_controls(editor, cases, sums, rows, matched, surroundings, config):
                tell(number, target.id)
            control_rows = sums.rows(len(matched), len({item.video_id for item in matched}))
            write_table(_part(parts, target, "controls"), pd.DataFrame(control_rows, columns=CONTROLS.names), CONTROLS)
            # Last, because it is what marks the target as done.
            write_table(_part(parts, target, "effects"), pd.DataFrame(rows, columns=EFFECTS.names), EFFECTS)


def run_controls(
    editor: Editor,
    cases: CodedCases,
    sums: ControlSums,
    rows: Sequence[Mapping[str, Any]],
    matched: Sequence[Item],
    surroundings: Surroundings,
    config: SteerConfig,
) -> Iterator[int]:
    """Run a target's controls in rounds until all have run or none of its operations can exceed them any more.

    Args:
        editor: the model and the SAE.
        cases: the videos with their questions.
        sums: of the target's controls; filled in.
        rows: the target's rows of effects.parquet.
        matched: held-out items of the target's subject.
        surroundings: what edits need to know of the videos.
        config: the arguments.

    Yields:
        Numbers of edited answers, video by video.
    """
    videos = sorted({item.video_id for item in matched})
    of_videos = [item.video_id for item in matched]
    found = {(row["operation"], row["item"]): row["delta_margin"] for row in rows}
    effect = {
        str(operation): video_means([found.get((str(operation), item.item_id), 0.0) for item in matched], of_videos)
        for operation in config.parsed_operations
    }
    for start in range(0, len(sums.controls), CONTROLS_AT_ONCE):
        for video_id in videos:
            which = slice(start, start + CONTROLS_AT_ONCE)
            yield sums.add(editor, *cases[video_id], which, surroundings.of(video_id, sums.target))
        by_operation = [
            is_closed(effect[str(operation)], sums.means(operation.magnitude, len(videos)), config.seed)
            for operation in config.parsed_operations
        ]
        if all(by_operation):
            return


def parts_of(folder: Path, chosen: Sequence[Target]) -> dict[str, pd.DataFrame]:
    """The rows of all targets."""
    return {
        name: joined_rows((read_table(_part(folder / "parts", target, name), schema) for target in chosen), schema)
        for name, schema in (("effects", EFFECTS), ("controls", CONTROLS))
    }


def _part(parts: Path, target: Target, table: str) -> Path:
    """File of one target's rows. It is named by a hash, since a label may be long and hold any character."""
    told_apart = json.dumps([target.id, list(target.latents)])
    return parts / f"{hashlib.sha256(told_apart.encode()).hexdigest()[:16]}-{table}.parquet"


def _is_run(parts: Path, target: Target) -> bool:
    """Whether a target has left both of its tables, whole."""
    tables = {_part(parts, target, "controls"): CONTROLS, _part(parts, target, "effects"): EFFECTS}
    if not all(path.exists() for path in tables):
        return False
    try:
        for path, schema in tables.items():
            others = set(read_table(path, schema)["target"]) - {target.id}
            if others:
                raise UserError(f"{printable(path, 4096)} holds rows of another target.")
    except UserError as error:
        logger.warning("%s: the target %s is run again", error, printable(target.id))
        return False
    return True
