"""The steer stage: from a run's SAE and questions to the effect of latents on the answers.

Order of work: freeze the items; check on one video that edits do what they say; one pass over all videos that answers
every item, screens all latents and writes items.parquet, baselines.parquet and screen.parquet; a second screen and the
exact ablation of every latent on the train videos, as far as the budget goes (sweep.parquet, and in screens.parquet how
far the screens can be trusted); the targets that these choose on the held-out videos, each beside its controls and each
leaving its rows in `parts/` when it is done; what follows a confirmed latent further; the tables over all targets and
the claims; summary.json last. A killed run goes on with the first part that is not there or cannot be read. Processes
of one launcher share videos, lots of latents, targets and what follows; the first one writes the tables.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pandas as pd

from ask.cases import Cases
from ask.opened import AskedRun
from ask.questions import Item
from collect.artefact.config_json import read_config
from collect.artefact.folder import read_table, write_table
from collect.artefact.lock import writing
from collect.artefact.stage import begin_or_resume, write_summary
from collect.printable import Lines, printable
from collect.process.ranks import Process
from features.division import Division, joined_processes
from steer.codes import CodedCases
from steer.config import SteerConfig
from steer.effects import Editor
from steer.evidence.claims import claims, direction, dissociations
from steer.evidence.mechanisms import mechanisms
from steer.evidence.summary import Summaries, by_latent, summarise
from steer.held_out import parts_of, run_targets
from steer.mechanism.attention import require_attention
from steer.mechanism.matched import Bench
from steer.mechanism.runner import run_analyses
from steer.mechanism.tables import MECHANISM_TABLES, MECHANISMS
from steer.opened import Inputs, load_inputs
from steer.reference import reference
from steer.screening import answer_and_screen
from steer.screens.agreement import screens
from steer.screens.estimates import with_estimates
from steer.screens.passes import Passes
from steer.selfcheck import check_on_a_video
from steer.sweep import sweep
from steer.tables import (
    CLAIM_NAMES,
    CLAIMS,
    CONTROLS,
    DISSOCIATIONS,
    EFFECTS,
    LATENT_SUBJECTS,
    SCREEN,
    SCREENS,
    SUMMARY,
    TARGET_SUBJECTS,
    TARGETS,
)
from steer.targets import Target, TrainEffects, by_label, confirmable, targets
from train_sae.opened import name_of_wanted

logger = logging.getLogger(__name__)

STAGE = "steer"
IGNORED = ("device", "batch_size", "run", "data")
"""Arguments that a resumed run may change."""
TABLES = (
    "items.parquet",
    "baselines.parquet",
    "screen.parquet",
    "sweep.parquet",
    "screens.parquet",
    "latent_subjects.parquet",
    "targets.parquet",
    "effects.parquet",
    "controls.parquet",
    "target_subjects.parquet",
    "summary.parquet",
    "claims.parquet",
    "dissociations.parquet",
    *(f"{name}.parquet" for name in MECHANISM_TABLES),
    "mechanisms.parquet",
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
    with joined_processes(Process.of_environment()) as division, ExitStack() as held:
        division.agree(lambda: held.enter_context(writing(folder)))
        inputs = load_inputs(config)
        config = dataclasses.replace(config, sae=inputs.opened.argument)

        def is_finished() -> bool:
            paths = {"run": config.run, "data": inputs.asked.dataset.folder, "sae": inputs.opened.folder}
            # The items are compared; what is annotated beside them does not matter here.
            return begin_or_resume(
                folder,
                STAGE,
                config,
                inputs.hashes(),
                ignore=IGNORED,
                recorded=("annotations",),
                paths=paths,
                formerly=inputs.opened.formerly(),
            )

        if not division.agree(is_finished):
            _run(config, inputs, folder, division)
        division.meet()  # nobody leaves before the first process has written the tables
    return folder


def _run(config: SteerConfig, inputs: Inputs, folder: Path, division: Division) -> None:
    asked = inputs.asked
    cases = CodedCases(Cases(asked, inputs.sae.site), inputs.sae)
    usual = reference(asked.store, inputs.sae.site, inputs.sae, asked.train_videos)
    if "flow" in config.analyses:
        require_attention(cases.cases.model, cases[cases.cases.videos[0]][0].sequences)

    editor = Editor(
        model=cases.cases.model,
        sae=inputs.sae,
        reference=usual,
        batch_size=config.batch_size,
    )
    check_on_a_video(editor, cases)
    screen, by_item = answer_and_screen(folder, inputs, cases, usual, division)
    swept = sweep(folder, Passes(editor, cases), by_item, 60 * config.budget_minutes, config.seed, division)
    if division.is_first:
        estimated = with_estimates(swept)
        write_table(folder / "screens.parquet", screens(estimated), SCREENS)
        write_table(folder / "latent_subjects.parquet", by_latent(estimated, asked.items, config.seed), LATENT_SUBJECTS)
    division.meet()
    on_train = read_table(folder / "latent_subjects.parquet", LATENT_SUBJECTS)
    chosen = targets(
        screen,
        TrainEffects(on_train, confirmable(asked.items)),
        d_sae=inputs.sae.d_sae,
        given=config.latents,
        top=config.top,
        associated=by_label(inputs.features_folder, config.associated),
    )
    run_targets(folder, editor, cases, asked.items, chosen[division.place :: division.n], config)
    division.meet()
    joined = parts_of(folder, chosen)
    found = summarise(
        joined["effects"], joined["controls"], screen, asked.items, chosen, config.parsed_operations, config.seed
    )
    confirmed = moving(chosen, found.summary)
    analysed = _analysed(folder, asked, editor, cases, confirmed, on_train, config, division)
    division.meet()  # the first process removes what the others have read
    if division.is_first:
        finish(folder, asked.items, screen, chosen, joined, found, analysed, config)


def _analysed(
    folder: Path,
    asked: AskedRun,
    editor: Editor,
    cases: CodedCases,
    confirmed: Sequence[Target],
    on_train: pd.DataFrame,
    config: SteerConfig,
    division: Division,
) -> Mapping[str, pd.DataFrame]:
    """Follow the confirmed latents further: the tables of `steer.mechanism`."""
    train, held_out = (
        Bench(
            editor=editor,
            cases=cases,
            items=tuple(item for item in asked.items if item.held_out == is_held_out),
            seed=config.seed,
        )
        for is_held_out in (False, True)
    )
    return run_analyses(
        folder / "parts",
        config.analyses,
        train,
        held_out,
        confirmed,
        on_train,
        asked.dataset.video,
        division,
    )


def moving(chosen: Sequence[Target], summary: pd.DataFrame) -> list[Target]:
    """The single latents whose ablation is confirmed and moves the expected count: what is looked at further."""
    rows = summary[summary["operation"] == "ablate"].to_dict("records")
    names = {
        row["target"]
        for row in rows
        if row["n_controls"] > 0 and bool(row["confirmed"]) and direction(row) != "undecided"
    }
    return [target for target in chosen if target.id in names and not target.is_set]


def finish(
    folder: Path,
    items: Sequence[Item],
    screen: pd.DataFrame,
    chosen: Sequence[Target],
    joined: Mapping[str, pd.DataFrame],
    found: Summaries,
    analysed: Mapping[str, pd.DataFrame],
    config: SteerConfig,
) -> None:
    """Write the tables over all targets, and mark the stage as finished."""
    summary = found.summary
    claimed = claims(summary, found.subjects, config.parsed_operations, analysed["doses"])
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
    said = mechanisms(analysed)
    for name, schema in MECHANISM_TABLES.items():
        write_table(folder / f"{name}.parquet", analysed[name], schema)
    write_table(folder / "mechanisms.parquet", said, MECHANISMS)
    content = {
        "n_items": len(items),
        "n_counting_held_out": sum(item.held_out and item.counting for item in items),
        "n_noncounting_held_out": sum(item.held_out and not item.counting for item in items),
        "n_targets": len(chosen),
        "n_confirmed": int(summary["confirmed"].fillna(value=False).astype(bool).sum()),
        "claims": {name: int((claimed["claim"] == name).sum()) for name in CLAIM_NAMES},
        "n_dissociations": len(pairs),
        "n_mechanisms": len(said),
        "sets": {target.id: list(target.latents) for target in chosen if target.is_set},
    }
    write_summary(folder, content, TABLES)
    shutil.rmtree(folder / "parts", ignore_errors=True)
    logger.info("%s", Lines(describe(claimed)))


def describe(claimed: pd.DataFrame) -> str:
    """Lay the claims out as text: a row per target and operation."""

    def number(value: float, sign: str = "") -> str:
        return "–" if pd.isna(value) else f"{value:{sign}.3f}"

    signed = partial(number, sign="+")

    def interval(low: float, high: float) -> str:
        return "–" if pd.isna(low) else f"[{signed(low)}, {signed(high)}]"

    text = pd.DataFrame(
        {
            "target": claimed["target"].map(lambda name: printable(name, 60)),
            "operation": claimed["operation"],
            "subject": claimed["subject"].map(lambda name: printable(name, 40)),
            "Δmargin": claimed["delta_margin"].map(signed),
            "95 % interval": list(map(interval, claimed["delta_margin_low"], claimed["delta_margin_high"])),
            "others": claimed["delta_margin_other"].map(signed),
            "non-counting questions": claimed["delta_margin_noncounting"].map(signed),
            "Δcount": claimed["delta_expected_count"].map(signed),
            "videos": claimed["n_videos"],
            "q": claimed["q_value"].map(number),
            "q, controls": claimed["control_q_value"].map(number),
            "claim": claimed["claim"],
        }
    )
    return text.to_string(index=False)
