"""The tables of the steer stage: names, types and meaning of every column.

Each schema documents itself: `SCHEMA.field(name).metadata[b"doc"]` says what the column holds. A *target* is what one
intervention edits together: one latent or a set of them, a row of `targets.parquet`. Margins are in nats.
"""

from __future__ import annotations

import pyarrow as pa

from collect.artefact.table import column
from steer.controls import FAMILIES

TEXT, WHOLE, REAL, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
REASONS, SPLITS = ("given", "screen", "associated", "set"), ("train", "held_out")


def _schema(purpose: str, *columns: pa.Field) -> pa.Schema:
    return pa.schema(columns, metadata={"doc": purpose})


SCREEN = _schema(
    "One row per latent: first-order estimate of what its ablation does to the answer margin.",
    column("latent", WHOLE, "latent", least=0),
    column(
        "status",
        TEXT,
        "`screened`, or `never active` on the evaluated videos (then the estimates are null)",
        among=("screened", "never active"),
    ),
    column("n_videos_active", WHOLE, "evaluated videos in which it fires", least=0),
    column("firing_rate", REAL, "share of the reference tokens (store, train videos) on which it fires"),
    column("mean_active", REAL, "mean activation over the reference tokens on which it fires; null if none"),
    column("attribution_train", REAL, "estimated change of the counting margin by ablation, mean over train videos"),
    column("z_train", REAL, "the same divided by its standard error, with a floor (see screen.standardise)"),
    column("attribution_held_out", REAL, "as attribution_train, over held-out videos"),
    column("z_held_out", REAL, "as z_train, over held-out videos"),
    column("attribution_control", REAL, "as attribution_train, of the control questions' margin, over all videos"),
    column(
        "selected_by",
        TEXT,
        "why it is run exactly: `given`, `screen`, `associated`; null if it is not",
        null=True,
        among=REASONS,
    ),
)

TARGETS = _schema(
    "One row per target: what is edited together, and how it was chosen.",
    column("target", TEXT, "its id: the key in every other table, and not to be taken apart"),
    column("latents", pa.list_(WHOLE), "the latents that are edited together"),
    column("label", TEXT, "the label whose latents they are; null for a single latent and the screen's set", null=True),
    column("label_kind", TEXT, "kind of that label", null=True),
    column("selected_by", TEXT, "`given`, `screen` or `associated`", among=REASONS),
)

EFFECTS = _schema(
    "One row per target, operation and item on which the target fires; on every other item the effect is exactly 0.",
    column("target", TEXT, "id of the target in targets.parquet"),
    column("operation", TEXT, "operation, as written on the command line"),
    column("item", TEXT, "item of items.parquet"),
    column("video_id", TEXT, "video"),
    column("kind", TEXT, "kind of question"),
    column("counting", FLAG, "whether it is a counting question"),
    column("n_tokens_edited", WHOLE, "visual tokens whose residual was changed", least=0),
    column("mean_norm", REAL, "mean norm of the change over those tokens"),
    column("delta_margin", REAL, "change of the answer margin", null=False),
    column("delta_accuracy", REAL, "change of the accuracy, = wrong_to_right - right_to_wrong"),
    column("right_to_wrong", REAL, "share of the orders whose answer turned wrong"),
    column("wrong_to_right", REAL, "share of the orders whose answer turned right"),
    column("delta_expected_count", REAL, "change of the expected count; null for a control question"),
    column("delta_option_mass", REAL, "change of the probability of the three letters together"),
    column(
        "kl",
        REAL,
        "KL divergence of the new letter distribution from the old, in nats, mean over the orders of the options",
    ),
)

CONTROLS = _schema(
    "One row per control: a direction put on the same tokens with the same norms as a target's ablation or other edit.",
    column("target", TEXT, "id of the target in targets.parquet"),
    column("magnitude", TEXT, "edit whose norms the control has; operations with equal norms share their controls"),
    column("family", TEXT, "random, covariance or decoder", among=FAMILIES),
    column("index", WHOLE, "number of the control within its family", least=0),
    column("source", pa.list_(WHOLE), "latents whose decoder directions were used (family decoder); empty otherwise"),
    column("n_items", WHOLE, "held-out counting questions, edited or not", least=0),
    column("n_videos", WHOLE, "held-out videos with counting questions", least=0),
    column("delta_margin", REAL, "change of the counting margin, mean over held-out videos", null=False),
    column("delta_accuracy", REAL, "change of the accuracy, mean over held-out videos"),
    column("delta_expected_count", REAL, "change of the expected count, mean over held-out videos"),
)

SUMMARY = _schema(
    "One row per target and operation: its effect on held-out videos. Means are over all held-out videos with such "
    "questions, those in which the target never fires included as exact zeros.",
    column("target", TEXT, "id of the target in targets.parquet"),
    column("latents", pa.list_(WHOLE), "the latents that are edited together"),
    column("operation", TEXT, "operation, as written on the command line"),
    column("method", TEXT, "`exact`: every number comes from a run of the edited model"),
    column("selected_by", TEXT, "`given`, `screen` or `associated`", among=REASONS),
    column("firing_rate", REAL, "share of the reference tokens on which the latent fires; null for a set"),
    column("n_items", WHOLE, "held-out counting questions", least=0),
    column("n_items_active", WHOLE, "those whose video it fires in", least=0),
    column("n_videos", WHOLE, "held-out videos with counting questions", least=0),
    column("n_videos_active", WHOLE, "those in which it fires", least=0),
    column("delta_margin", REAL, "change of the counting margin", null=False),
    column("delta_margin_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    column("delta_margin_high", REAL, "upper end"),
    column("delta_margin_active", REAL, "change of the counting margin, mean over the videos in which it fires"),
    column("delta_accuracy", REAL, "change of the counting accuracy"),
    column("right_to_wrong", REAL, "share of the counting answers that turned wrong"),
    column("wrong_to_right", REAL, "share of the counting answers that turned right"),
    column("delta_expected_count", REAL, "change of the expected count"),
    column("delta_expected_count_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    column("delta_expected_count_high", REAL, "upper end"),
    column("kl", REAL, "KL divergence of the new letter distribution from the old, in nats"),
    column("p_value", REAL, "two-sided sign-flip test of delta_margin over videos"),
    column("q_value", REAL, "Benjamini-Hochberg over all rows of this table"),
    column("detectable", REAL, "smallest |delta_margin| that such a test finds with 80 % power at 5 %"),
    column("n_controls", WHOLE, "controls with the same norms on the same tokens", least=0),
    column("control_p95_random", REAL, "95th percentile of |delta_margin| of the random directions"),
    column("control_p95_covariance", REAL, "the same for directions drawn from the covariance of the activations"),
    column("control_p95_decoder", REAL, "the same for decoder directions of latents of like firing rate and norm"),
    column("control_p95", REAL, "largest of the three"),
    column("control_p_value", REAL, "(1 + controls with at least this |delta_margin|) / (1 + controls)"),
    column("beats_controls", FLAG, "|delta_margin| exceeds control_p95; null without controls", null=True),
    column("confirmed", FLAG, "beats_controls, and q_value < 0.05; null without controls", null=True),
    column("delta_margin_control", REAL, "change of the margin of the control questions"),
    column("delta_margin_control_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    column("delta_margin_control_high", REAL, "upper end"),
    column("specificity", REAL, "|delta_margin| - |delta_margin_control|"),
    column("screened", REAL, "what the screen estimates for delta_margin (ablation and scaling only)"),
)
