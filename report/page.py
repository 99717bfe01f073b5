"""The report: one self-contained page that shows what a run found, and says plainly what it did not find.

    RUN/report/index.html     inline styles, charts as SVG, pictures embedded; no script, no request to anywhere

The page is made from the artefacts on every call and holds no time of day: the same run gives the same bytes. The
sentences come from `report.verdicts`, the charts from `report.charts`, the layout from `page.html.j2`.
"""

from __future__ import annotations

import importlib.resources
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, cast

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ask.opened import stages_of
from ask.reading import KEPT_SHARE
from collect.artefact.folder import remove_orphans, write_atomic
from collect.artefact.lock import writing
from collect.artefact.run_data import check_agreement
from collect.printable import printable
from report import charts, claim_rows, effect_verdict, target_rows, wording
from report import verdicts as conclusions
from report.config import ReportConfig
from report.mechanisms import mechanism_lines
from report.pictures import pictures
from report.record import Effects, Features, Record, read_record
from report.reproduction import command, provenance
from steer.reading import SIGNIFICANT_Q
from train_sae.reading import check_same_sae

log = logging.getLogger(__name__)

COUNT_TESTS = {
    "dose": "a monotone dose-response",
    "exchange": "an exchange of its activations with a video of another count",
}
"""What a latent that stands for the count itself must pass, by the aspect in mechanisms.parquet."""
GALLERY = 8
"""Labelled latents that are shown with pictures."""
EFFECT_GALLERY = 5
"""Further latents that are shown because the effect of their edit is confirmed."""
STRIPS = 2
"""Pictures per latent."""
LISTED_COMBINATIONS = 12
LISTED_PAIRS = 20
"""Rows of the association table, and double dissociations."""
DEMO_MODEL = ("demo", "weights")
"""Where the model of `video-sae demo` lies."""
BROWSE = "browse/index.html"
"""Where `video-sae browse --export` puts its page if it is made within the run, which this page then leads to."""
LISTED_CLAIMS = 6
"""Sentences of one claim."""
LATENTS_PER_SUBJECT = 3
"""Rows of one subject in the table of latents and subjects."""


def report(config: ReportConfig) -> Path:
    """Write the page and return its path.

    Raises:
        UserError: the run has no finished stage, it has several SAEs and none is named, an artefact is damaged, two
            stages took other annotations, or another process is writing the page.
    """
    path = config.run / "report" / "index.html"
    with writing(path.parent):
        remove_orphans(path.parent)
        record = read_record(config.run, config.sae)
        if record.sae_name is not None:
            stages = stages_of(config.run, record.sae_name)
            check_agreement(config.run, stages)
            check_same_sae(config.run, stages)
        content = page_content(record)
        write_atomic(path, fill_in(content))
    shown = printable(path, 4096)
    for stage in record.stages:
        if not stage.finished:
            log.warning("%s: the stage %s is %s, so the page lacks its part.", shown, stage.name, stage.state)
    for gap in content["gaps"]:
        log.warning("%s: %s", shown, gap)
    return path


def render(record: Record) -> str:
    """The page of a run."""
    return fill_in(page_content(record))


def fill_in(content: Mapping[str, Any]) -> str:
    """Put what the template shows into it."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    cast("dict[str, Any]", environment.filters).update(
        {name: getattr(wording, name) for name in ("number", "signed", "percent", "probability")}
    )
    source = importlib.resources.files("report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        content, interval=wording.interval, is_known=wording.is_known, charts=charts
    )


def _shown(value: Any) -> Any:
    """Text from outside without control characters; markup is left as it is."""
    return printable(value, 100_000) if isinstance(value, str) and not isinstance(value, Markup) else value


def page_content(record: Record) -> dict[str, Any]:
    """Everything that the template shows."""
    features, effects = record.features, record.effects
    catalogue = None if features is None else features.catalogue
    summary = None if effects is None else effects.summary
    answers = [] if effects is None else conclusions.accuracies(effects.baselines)
    verdicts = (
        conclusions.answer_verdict(answers),
        conclusions.object_verdict(
            catalogue, None if features is None else features.associations, fdr_of(record) or SIGNIFICANT_Q
        ),
        effect_verdict.effect_verdict(
            summary, None if effects is None else effects.claims, {} if effects is None else effects.targets
        ),
    )
    targets = [] if effects is None else target_rows.target_rows(effects.summary, effects.targets, catalogue)
    entries, notes = gallery(record)
    return {
        "run_name": record.run.resolve().name,
        "has_browse": (record.run / BROWSE).is_file(),
        "verdicts": verdicts,
        "headline": headline(verdicts),
        "missing": [stage for stage in record.stages if not stage.finished],
        "commands": {stage.name: f"video-sae {stage.name} …" for stage in record.stages},
        "data": data_facts(record),
        "training": record.training,
        "training_chart": training_chart(record),
        "profile": record.profile,
        "profile_chart": None
        if record.profile is None
        else charts.profile_chart(record.profile.table, record.profile.site, KEPT_SHARE),
        "kept_share": KEPT_SHARE,
        "answers": answers,
        "features": features,
        "gallery": entries,
        "gaps": [*record.gaps, *notes],
        "associations": [] if features is None else association_table(features),
        "n_holding": 0 if features is None else int(features.associations["holds"].astype(bool).sum()),
        "n_tested": 0 if features is None else int((features.associations["split"] == "held_out").sum()),
        "n_labels_tested": 0 if features is None else n_labels_tested(features),
        "fdr": fdr_of(record),
        **combination_content(features),
        "effects": effects,
        "targets": targets,
        "operations": [] if summary is None else list(dict.fromkeys(summary["operation"])),
        "controls": None if effects is None else effects.controls,
        "effect_notes": [] if effects is None else effect_notes(effects, targets),
        **claim_content(effects),
        "is_demo": is_demo(record),
        "limits": limits(record),
        "reproduce": [(stage.name, command(stage)) for stage in record.stages if stage.config],
        "provenance": provenance(record.stages),
    }


def effect_notes(effects: Effects, targets: Sequence[target_rows.TargetRow]) -> list[str]:
    """What effects and associations say together, and how far the sweep went."""
    notes = (target_rows.coincidence(targets), claim_rows.screen_agreement(effects.latent_subjects, effects.screens))
    return [note for note in notes if note]


def claim_content(effects: Effects | None) -> dict[str, Any]:
    """What the template shows of the claims."""
    if effects is None:
        lists = ("claims", "claim_counts", "dissociations", "mechanisms")
        return {"subjects": None, "n_dissociations": 0, **{name: [] for name in lists}}
    targets = effects.targets
    return {
        "claims": claim_rows.claim_lines(effects.claims, targets, LISTED_CLAIMS),
        "claim_counts": claim_rows.claim_counts(effects.claims),
        "subjects": claim_rows.subject_table(effects.target_subjects, effects.claims, targets, LATENTS_PER_SUBJECT),
        "dissociations": claim_rows.dissociation_lines(effects.dissociations, targets, LISTED_PAIRS),
        "mechanisms": mechanism_lines(effects.mechanisms, targets),
        "n_dissociations": len(effects.dissociations),
    }


def is_demo(record: Record) -> bool:
    """Whether the model is the demo's own, whose findings are a positive control."""
    return record.store is not None and PurePath(str(record.store.model.get("name"))).parts[-2:] == DEMO_MODEL


def headline(verdicts: Sequence[conclusions.Verdict]) -> str:
    """One sentence from the verdicts on objects and on counts."""
    text = "; ".join(verdict.headline for verdict in verdicts[1:])
    return text[0].upper() + text[1:] + "."


def data_facts(record: Record) -> dict[str, Any] | None:
    """What was collected from which model; None without activations."""
    store = record.store
    if store is None:
        return None
    grids = sorted({(v.grid.n_t, v.grid.n_rows, v.grid.n_cols) for v in store.videos})
    return {
        "model": {name: store.model.get(name, "?") for name in ("name", "family", "n_layers", "d_model")},
        "n_videos": len(store.videos),
        "n_held_out": len(record.held_out),
        "n_tokens": store.n_tokens,
        "sites": ", ".join(store.sites),
        "grids": ", ".join(f"{t} frames of {rows} × {cols}" for t, rows, cols in grids[:3])
        + (" …" if len(grids) > 3 else ""),
        "duration_s": sum(v.n_frames / v.frame_rate for v in store.videos if v.frame_rate) / max(1, len(store.videos)),
        "n_failures": len(store.failures),
    }


def training_chart(record: Record) -> Any:
    """The training curve; None without its lines."""
    training = record.training
    if training is None or len(training.curve) == 0:
        return None
    held_out = training.summary.get("held_out") or {}
    return charts.training_chart(training.curve, held_out.get("fvu"))


def gallery(record: Record) -> tuple[list[dict[str, Any]], list[str]]:
    """The latents that are shown with pictures: labelled ones, then those whose edits have a confirmed effect.

    Returns:
        What is shown for each, and problems with pictures, as sentences.
    """
    if record.features is None:
        return [], []
    rows = {int(row["latent"]): row for row in record.features.catalogue.to_dict("records")}
    labelled = conclusions.gallery_latents(record.features.catalogue, GALLERY)
    summary = None if record.effects is None else record.effects.summary
    sure = [] if summary is None else target_rows.single_latents(summary, target_rows.confirmed(summary))
    chosen = labelled + [latent for latent in sure if latent in rows and latent not in labelled][:EFFECT_GALLERY]
    drawn, notes = pictures(record, chosen, STRIPS)
    return [
        {
            "latent": latent,
            "row": rows[latent],
            "pair": conclusions.top_association(record.features.associations, rows[latent]),
            "pictures": drawn.get(latent, []),
            "effect": "moves the answers to counting questions" if latent in sure else "",
        }
        for latent in chosen
    ], notes


def fdr_of(record: Record) -> float | None:
    """The false discovery rate of the features stage; None where its config.json is missing."""
    value = record.stage("features").config.get("arguments", {}).get("fdr")
    return float(value) if isinstance(value, int | float) else None


def n_labels_tested(features: Features) -> int:
    """Different labels among the tested pairs of a latent and a label."""
    return len(features.associations[["label", "kind", "level"]].drop_duplicates())


def association_table(features: Features) -> list[dict[str, Any]]:
    """Rows of the association table: the pair, and the runner-up where the pair's label is the latent's own."""
    catalogue = features.catalogue.set_index("latent", drop=False)
    rows: list[dict[str, Any]] = []
    for pair in conclusions.association_rows(features.associations, LISTED_PAIRS).to_dict("records"):
        own = catalogue.loc[pair["latent"]]
        is_top = (own["top_label"], own["top_label_kind"], own["top_label_level"]) == (
            pair["label"],
            pair["kind"],
            pair["level"],
        )
        runner_up = own["runner_up_label"] if is_top else own["top_label"]
        score = own["runner_up_auroc"] if is_top else own["top_auroc"]
        rows.append({**pair, "is_top": is_top, "other_label": runner_up, "other_auroc": score})
    return rows


def combination_content(features: Features | None) -> dict[str, Any]:
    """Combinations of labels that explain a latent better than each of their parts, by falling gain."""
    table = None if features is None else features.combinations
    if table is None:
        return {"combinations": None}
    rows = table[table["beats_parts"].astype(bool)]
    rows = rows.sort_values(["gain", "latent", "depth"], ascending=[False, True, True], kind="stable")
    return {
        "combinations": rows.head(LISTED_COMBINATIONS).to_dict("records"),
        "n_combinations": len(table),
        "n_beating": len(rows),
    }


def limits(record: Record) -> list[str]:
    """What the numbers do not say, in the words and figures of this run."""
    notes: list[str] = []
    if record.store is not None:
        n_held_out = len(record.held_out)
        notes.append(
            f"Everything is chosen on {wording.counted(len(record.store.videos) - n_held_out, 'train video')} and "
            f"reported on {wording.counted(n_held_out, 'held-out video')}, from one seed of every stage; how much "
            "another SAE of the same size would differ was not measured."
        )
        if record.store.failures:
            notes.append(f"{wording.counted(len(record.store.failures), 'video')} could not be read and are left out.")
    if record.features is not None:
        arguments = record.stage("features").config.get("arguments", {})
        notes.append(
            f"Only labels shown by at least {arguments.get('min_videos', '?')} videos of each split were candidates, "
            f"{record.features.summary.get('n_labels', '?')} in all; {n_labels_tested(record.features):,} of them were "
            "tested, with the latents that go along with them most on train videos. An association says that a latent "
            "goes along with a label, not that the model uses it. A token also carries what lies outside its patch."
        )
    if record.effects is not None and len(record.effects.summary):
        summary = record.effects.summary
        n_exact = summary.loc[target_rows.alone(summary), "latents"].map(lambda latents: latents[0]).nunique()
        n_active = record.effects.latent_subjects["latent"].nunique()
        detectable = summary.loc[summary["operation"] == summary["operation"].iloc[0], "detectable"]
        found = "Each edit has an effect in too few videos for a test to find any change."
        if detectable.notna().any():
            found = (
                f"A change of the margin of about {wording.number(detectable.median())} nats (median over the edited "
                "targets that enough videos show) would have been found in four cases of five, by a test at 5\u00a0% "
                "of one edit alone."
            )
        notes.append(
            f"{wording.counted(n_exact, 'latent')} of the {n_active:,} that fire on the train videos went on to the "
            f"held-out ones; of the others only the effect on train videos is known, or an estimate of it. {found}"
        )
        notes.append(
            "A claim needs q < 0.05 over videos and q < 0.05 against controls, each by Benjamini-Hochberg within one "
            "family: single latents or sets of one origin, one operation, one subject. Over all families together, "
            "more than one in twenty claims may be wrong. Effects on train videos only choose, and are no estimates."
        )
        tested = {str(aspect) for aspect in record.effects.mechanisms["aspect"]}
        missing = [what for aspect, what in COUNT_TESTS.items() if aspect not in tested]
        if missing:
            notes.append(
                "Whether a latent stands for the count itself was not tested: that would also need "
                f"{' and '.join(missing)}."
            )
    if record.profile is not None:
        notes.append(
            "The profile replaces all visual tokens at once. It says where the answer still reads the video, not which "
            "tokens it reads."
        )
    return notes
