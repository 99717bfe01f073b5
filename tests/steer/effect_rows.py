"""Rows of the steer stage's tables, written by hand."""

from typing import Any

import pandas as pd
import pyarrow as pa

from steer.controls import FAMILIES
from steer.edits.operations import Operation
from steer.evidence.claims import claims
from steer.mechanism.tables import DOSES
from steer.tables import CONTROLS, LATENT_SUBJECTS, SCREENS, SUMMARY, TARGET_SUBJECTS
from steer.targets import Target

SUBJECT, OTHER_SUBJECT = "object", "action"
"""What the questions of `item_rows` count."""
OPERATIONS = [Operation.parse(text) for text in ("ablate", "scale:2")]
NO_DOSES = pd.DataFrame(columns=DOSES.names)
NO_SUBJECTS = pd.DataFrame(columns=TARGET_SUBJECTS.names)
"""Effects on no other subject."""


def row(schema: pa.Schema, **values: Any) -> dict[str, Any]:
    """A row of a table; columns that are not given are null where they may be, else 0, false or empty."""
    assert set(values) <= set(schema.names), set(values) - set(schema.names)
    zeros = {pa.bool_(): False, pa.int32(): 0, pa.int64(): 0, pa.string(): ""}
    return {field.name: values.get(field.name, None if field.nullable else zeros.get(field.type)) for field in schema}


def target(name: str, label: str | None = None) -> Target:
    """A single latent by its number; of any other name, a set of three."""
    return Target(
        id=name,
        latents=(int(name),) if name.isdigit() else (1, 2, 3),
        selected_by="sweep",
        subject=SUBJECT,
        label=label,
        label_kind="object" if label else None,
    )


def targets_of(*names: str) -> dict[str, Target]:
    return {name: target(name) for name in names}


def effect_row(
    target: str, operation: str, delta: float, *, limit: float | None = 0.2, **values: Any
) -> dict[str, Any]:
    """A row of summary.parquet; `limit` is the size of the largest control, None without controls."""
    defaults = {
        "latents": [int(target)] if target.isdigit() else [1, 2, 3],
        "method": "exact",
        "selected_by": "sweep",
        "subject": SUBJECT,
        "family": f"single latents, {operation}, {SUBJECT}",
        "n_items": 8,
        "n_videos": 4,
        "n_videos_active": 3,
        "delta_margin": delta,
        "delta_margin_low": delta - 0.1,
        "delta_margin_high": delta + 0.1,
        "delta_accuracy": delta / 10,
        "delta_expected_count": delta / 5,
        "delta_expected_count_low": delta / 5 - 0.01,
        "delta_expected_count_high": delta / 5 + 0.01,
        "delta_margin_other": 0.02,
        "delta_margin_other_low": 0.0,
        "delta_margin_other_high": 0.03,
        "q_value": 0.01,
        "detectable": 0.15,
        "n_controls": 0 if limit is None else 9,
        **{f"control_max_{family}": limit for family in FAMILIES},
        "control_max": limit,
        "control_p_value": None if limit is None else 0.1 if abs(delta) > limit else 0.5,
        "control_q_value": None if limit is None else 0.02 if abs(delta) > limit else 0.5,
        "confirmed": None if limit is None else abs(delta) > limit and values.get("q_value", 0.01) < 0.05,
        "delta_margin_noncounting": 0.05,
        "delta_margin_noncounting_low": 0.0,
        "delta_margin_noncounting_high": 0.1,
    }
    return row(SUMMARY, target=target, operation=operation, **(defaults | values))


def control_rows(target: str) -> list[dict[str, Any]]:
    return [
        row(CONTROLS, target=target, magnitude="scale 1", family=family, index=index, source=[], delta_margin=value)
        for family in FAMILIES
        for index, value in enumerate((-0.1, 0.02, 0.15))
    ]


def claimed(effects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of claims.parquet for rows of summary.parquet."""
    return claims(pd.DataFrame(effects), NO_SUBJECTS, OPERATIONS, NO_DOSES).to_dict("records")


def latent_subject_rows() -> list[dict[str, Any]]:
    """Six latents on two subjects, of which the last was not reached."""
    return [
        row(
            LATENT_SUBJECTS,
            latent=latent,
            scope="subject",
            name=subject,
            method="gradient" if latent == 5 else "exact",
            attribution=-0.1 * latent if subject == SUBJECT else 0.01,
            delta_margin=None if latent == 5 else (-0.12 * latent if subject == SUBJECT else 0.0),
            n_items=4,
            n_videos=4,
        )
        for latent in range(6)
        for subject in (SUBJECT, OTHER_SUBJECT)
    ]


def screens_rows() -> list[dict[str, Any]]:
    """Two screens of which the second reached one subject."""
    shared = {"n_latents": 6, "n_exact": 5, "n_top": 4, "n_rest": 2, "n_drawn": 1}
    return [
        row(SCREENS, screen="gradient", subject=SUBJECT, recall_top=0.5, missed_bound=0.95, **shared),
        row(SCREENS, screen="gradient", subject=OTHER_SUBJECT, recall_top=0.25, missed_bound=0.95, **shared),
        row(SCREENS, screen="direct", subject=SUBJECT, recall_top=1.0, missed_bound=0.95, **shared),
    ]
