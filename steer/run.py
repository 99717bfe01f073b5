"""The steer stage: from a run's SAE and questions to the effect of latents on the answers.

Order of work: freeze the items; check on one video that edits do what they say; one pass over all videos that answers
every item, screens all latents and writes items.parquet, baselines.parquet and screen.parquet; the exact ablation of
every latent on the train videos, as far as the budget goes (sweep.parquet); the targets that these choose on the
held-out videos, each beside its controls and each leaving its rows in `parts/` when it is done; the tables over all
targets and the claims; summary.json last. A killed run goes on with the first part that is not there or cannot be read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from ask.cases import Cases
from ask.inference import video_means
from ask.questions import Item
from collect.artefact.config_json import read_config
from collect.artefact.folder import read_table, write_table
from collect.artefact.lock import writing
from collect.artefact.stage import begin_or_resume, write_summary
from collect.errors import UserError
from collect.printable import Lines, printable
from steer.codes import CodedCases
from steer.config import SteerConfig
from steer.effects import ControlSums, Editor, draw_controls, effects, touches
from steer.evidence.claims import claims, dissociations
from steer.evidence.stopping import is_closed
from steer.evidence.summary import by_latent, summarise
from steer.interventions import magnitude
from steer.opened import Inputs, load_inputs
from steer.reference import reference
from steer.screening import answer_and_screen
from steer.selfcheck import check_edits
from steer.sweep import sweep
from steer.tables import (
    CLAIM_NAMES,
    CLAIMS,
    CONTROLS,
    DISSOCIATIONS,
    EFFECTS,
    LATENT_SUBJECTS,
    SCREEN,
    SUMMARY,
    TARGET_SUBJECTS,
    TARGETS,
)
from steer.targets import Target, TrainEffects, by_label, confirmable, targets
from train_sae.opened import name_of_wanted

logger = logging.getLogger(__name__)

STAGE = "steer"
CONTROLS_AT_ONCE = 15
"""Controls of one round, after which it is seen whether more can change the decision."""
IGNORED = ("device", "batch_size", "run", "data")
"""Arguments that a resumed run may change."""
TABLES = (
    "items.parquet",
    "baselines.parquet",
    "screen.parquet",
    "sweep.parquet",
    "latent_subjects.parquet",
    "targets.parquet",
    "effects.parquet",
    "controls.parquet",
    "target_subjects.parquet",
    "summary.parquet",
    "claims.parquet",
    "dissociations.parquet",
)


def steer(config: SteerConfig) -> Path:
    """Measure how latents change the answers to counting questions.

    Returns:
        `RUN/steer/SAE/`, with the tables of `steer.tables`, config.json and summary.json.

    Raises:
        UserError: the run lacks a stage, its parts do not belong together, it has no counting questions, the folder was
            begun with other arguments, or another process is writing it.
    """
    read_config(config.run / "activations", "collect")  # without it nothing else of the run is of use
    folder = config.run / "steer" / name_of_wanted(config.run, config.sae)
    with writing(folder):
        inputs = load_inputs(config)
        config = dataclasses.replace(config, sae=inputs.opened.argument)
        paths = {"run": config.run, "data": inputs.asked.dataset.folder, "sae": inputs.opened.folder}
        # The items are compared; what is annotated beside them does not matter here.
        if not begin_or_resume(
            folder, STAGE, config, inputs.hashes(), ignore=IGNORED, recorded=("annotations",), paths=paths
        ):
            _run(config, inputs, folder)
    return folder


def _run(config: SteerConfig, inputs: Inputs, folder: Path) -> None:
    asked = inputs.asked
    cases = CodedCases(Cases(asked, inputs.sae.site), inputs.sae)
    usual = reference(asked.store, inputs.sae.site, inputs.sae, asked.train_videos)

    editor = Editor(
        model=cases.cases.model,
        sae=inputs.sae,
        reference=usual,
        batch_size=config.batch_size,
    )
    check_edits(editor, *cases[cases.cases.videos[0]])
    screen, by_item = answer_and_screen(folder, inputs, cases, usual)
    swept = sweep(folder, editor, cases, by_item, 60 * config.budget_minutes)
    on_train = by_latent(swept, asked.items, config.seed)
    write_table(folder / "latent_subjects.parquet", on_train, LATENT_SUBJECTS)
    chosen = targets(
        screen,
        TrainEffects(on_train, confirmable(asked.items)),
        d_sae=inputs.sae.d_sae,
        given=config.latents,
        top=config.top,
        associated=by_label(inputs.features_folder, config.associated),
    )
    run_targets(folder, editor, cases, asked.items, chosen, config)
    finish(folder, asked.items, screen, chosen, config)


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
                    new = effects(editor, case, codes, target, operations)
                    tell(len(new), target.id)
                    rows += new
                progress.update()
            matched = [item for item in held_out if item.subject == target.subject]
            sums = ControlSums.start(target, operations, draw_controls(editor, target, config.controls, config.seed))
            for number in run_controls(editor, cases, sums, rows, matched, config):
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
    config: SteerConfig,
) -> Iterator[int]:
    """Run a target's controls in rounds until all have run or none of its operations can exceed them any more.

    Args:
        editor: the model and the SAE.
        cases: the videos with their questions.
        sums: of the target's controls; filled in.
        rows: the target's rows of effects.parquet.
        matched: held-out items of the target's subject.
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
            yield sums.add(editor, *cases[video_id], slice(start, start + CONTROLS_AT_ONCE))
        by_operation = [
            is_closed(effect[str(operation)], sums.means(magnitude(operation), len(videos)), config.seed)
            for operation in config.parsed_operations
        ]
        if all(by_operation):
            return


def finish(
    folder: Path, items: Sequence[Item], screen: pd.DataFrame, chosen: Sequence[Target], config: SteerConfig
) -> None:
    """Join the parts, summarise them, and mark the stage as finished."""
    parts = folder / "parts"
    joined = {
        name: _concatenate([read_table(_part(parts, target, name), schema) for target in chosen], schema.names)
        for name, schema in (("effects", EFFECTS), ("controls", CONTROLS))
    }
    found = summarise(
        joined["effects"], joined["controls"], screen, items, chosen, config.parsed_operations, config.seed
    )
    summary = found.summary
    claimed = claims(summary, found.subjects)
    pairs = dissociations(claimed, found.subjects, chosen)
    reasons = {target.latents[0]: target.selected_by for target in reversed(chosen) if not target.is_set}
    write_table(folder / "screen.parquet", screen.assign(selected_by=screen["latent"].map(reasons)), SCREEN)
    named = [{"target": target.id, **dataclasses.asdict(target)} for target in chosen]
    write_table(folder / "targets.parquet", pd.DataFrame(named, columns=TARGETS.names), TARGETS)
    write_table(folder / "effects.parquet", joined["effects"], EFFECTS)
    write_table(folder / "controls.parquet", joined["controls"], CONTROLS)
    write_table(folder / "target_subjects.parquet", found.subjects, TARGET_SUBJECTS)
    write_table(folder / "summary.parquet", summary, SUMMARY)
    write_table(folder / "claims.parquet", claimed, CLAIMS)
    write_table(folder / "dissociations.parquet", pairs, DISSOCIATIONS)
    content = {
        "n_items": len(items),
        "n_counting_held_out": sum(item.held_out and item.counting for item in items),
        "n_noncounting_held_out": sum(item.held_out and not item.counting for item in items),
        "n_targets": len(chosen),
        "n_confirmed": int(summary["confirmed"].fillna(value=False).astype(bool).sum()),
        "claims": {name: int((claimed["claim"] == name).sum()) for name in CLAIM_NAMES},
        "n_dissociations": len(pairs),
        "sets": {target.id: list(target.latents) for target in chosen if target.is_set},
    }
    write_summary(folder, content, TABLES)
    shutil.rmtree(parts, ignore_errors=True)
    logger.info("%s", Lines(describe(claimed)))


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


def _concatenate(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))


def describe(claimed: pd.DataFrame) -> str:
    """Lay the claims out as text: a row per target and operation."""
    signed = "{:+.3f}".format
    text = pd.DataFrame(
        {
            "target": claimed["target"].map(lambda name: printable(name, 60)),
            "operation": claimed["operation"],
            "subject": claimed["subject"].map(lambda name: printable(name, 40)),
            "Δmargin": claimed["delta_margin"].map(signed),
            "95 % interval": [
                f"[{low:+.3f}, {high:+.3f}]"
                for low, high in zip(claimed["delta_margin_low"], claimed["delta_margin_high"], strict=True)
            ],
            "others": claimed["delta_margin_other"].map(signed),
            "non-counting questions": claimed["delta_margin_noncounting"].map(signed),
            "Δcount": claimed["delta_expected_count"].map(signed),
            "videos": claimed["n_videos"],
            "q": claimed["q_value"].map("{:.3f}".format),
            "q, controls": claimed["control_q_value"].map("{:.3f}".format),
            "claim": claimed["claim"],
        }
    )
    return text.to_string(index=False)
