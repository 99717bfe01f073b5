"""The tables of the steer stage: names, types and meaning of every column.

Each schema documents itself: `SCHEMA.field(name).metadata[b"doc"]` says what the column holds. A *target* is what one
intervention edits together: a latent, written as its number, or the set, written `set`. Margins are in nats.
"""

from __future__ import annotations

import pyarrow as pa

TEXT, WHOLE, REAL, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()


def _schema(purpose: str, *columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    fields = [pa.field(name, kind, metadata={"doc": doc}) for name, kind, doc in columns]
    return pa.schema(fields, metadata={"doc": purpose})


ITEMS = _schema(
    "One row per question that is evaluated, with the unedited model's answer.",
    ("item", TEXT, "video_id/question_id"),
    ("video_id", TEXT, "video"),
    ("question_id", WHOLE, "id of the question in the annotations"),
    ("kind", TEXT, "the tag that made it a counting question, or the first tag of a control question"),
    ("counting", FLAG, "whether it is a counting question; else it is a control question"),
    ("held_out", FLAG, "whether its video is held out"),
    ("question", TEXT, "text of the question"),
    ("options", pa.list_(TEXT), "the three options in annotated order"),
    ("values", pa.list_(REAL), "numbers that the options name; null for a control question"),
    ("answer_id", WHOLE, "position of the correct option, from 0"),
    ("hash", TEXT, "SHA-256 of video, prompts of all permutations and answer"),
    ("question_only", REAL, "score of the question-only baseline learned on the train videos (1, 0, or chance)"),
    ("margin", REAL, "logit of the correct letter - logsumexp of the wrong ones, mean over permutations"),
    ("accuracy", REAL, "share of the permutations answered correctly"),
    ("expected_count", REAL, "expected count under the letter probabilities, mean over permutations"),
    ("option_mass", REAL, "probability of the three letters together, mean over permutations"),
)

BASELINES = _schema(
    "One row per kind of question and split: what the model scores and what it could score without the video.",
    ("kind", TEXT, "kind of question, or `all counting`, `all control`"),
    ("counting", FLAG, "whether the kind is a counting kind"),
    ("split", TEXT, "train or held_out"),
    ("n_items", WHOLE, "questions"),
    ("n_videos", WHOLE, "videos"),
    ("chance", REAL, "score of a random letter"),
    ("answer_frequency", REAL, "score of the most frequent answer of each question text, counted on these very items"),
    ("question_only", REAL, "score of the most frequent answer per question and options, learned on train videos"),
    ("accuracy", REAL, "score of the model, mean over permutations"),
    ("margin", REAL, "mean answer margin of the model"),
)

SCREEN = _schema(
    "One row per latent: first-order estimate of what its ablation does to the answer margin.",
    ("latent", WHOLE, "latent"),
    ("status", TEXT, "`screened`, or `never active` on the evaluated videos (then the estimates are null)"),
    ("n_videos_active", WHOLE, "evaluated videos in which it fires"),
    ("firing_rate", REAL, "share of the reference tokens (store, train videos) on which it fires"),
    ("mean_active", REAL, "mean activation over the reference tokens on which it fires; null if none"),
    ("attribution_train", REAL, "estimated change of the counting margin by ablation, mean over train videos"),
    ("z_train", REAL, "the same divided by its standard error, with a floor (see screen.standardise)"),
    ("attribution_held_out", REAL, "as attribution_train, over held-out videos"),
    ("z_held_out", REAL, "as z_train, over held-out videos"),
    ("attribution_control", REAL, "as attribution_train, of the control questions' margin, over all videos"),
    ("selected_by", TEXT, "why it is run exactly: `given`, `screen`, `associated`; null if it is not"),
)

EFFECTS = _schema(
    "One row per target, operation and item on which the target fires; on every other item the effect is exactly 0.",
    ("target", TEXT, "number of the latent, `set` for the screen's set, or `set: LABEL`"),
    ("operation", TEXT, "operation, as written on the command line"),
    ("item", TEXT, "item of items.parquet"),
    ("video_id", TEXT, "video"),
    ("kind", TEXT, "kind of question"),
    ("counting", FLAG, "whether it is a counting question"),
    ("n_tokens_edited", WHOLE, "visual tokens whose residual was changed"),
    ("mean_norm", REAL, "mean norm of the change over those tokens"),
    ("delta_margin", REAL, "change of the answer margin"),
    ("delta_accuracy", REAL, "change of the accuracy, = wrong_to_right - right_to_wrong"),
    ("right_to_wrong", REAL, "share of the permutations whose answer turned wrong"),
    ("wrong_to_right", REAL, "share of the permutations whose answer turned right"),
    ("delta_expected_count", REAL, "change of the expected count; null for a control question"),
    ("delta_option_mass", REAL, "change of the probability of the three letters together"),
    ("kl", REAL, "KL divergence of the new letter distribution from the old, in nats, mean over permutations"),
)

CONTROLS = _schema(
    "One row per control: a direction put on the same tokens with the same norms as a target's ablation or other edit.",
    ("target", TEXT, "number of the latent, `set` for the screen's set, or `set: LABEL`"),
    ("magnitude", TEXT, "edit whose norms the control has; operations with equal norms share their controls"),
    ("family", TEXT, "random, covariance or decoder"),
    ("index", WHOLE, "number of the control within its family"),
    ("source", pa.list_(WHOLE), "latents whose decoder directions were used (family decoder); empty otherwise"),
    ("n_items", WHOLE, "held-out counting questions, edited or not"),
    ("n_videos", WHOLE, "held-out videos with counting questions"),
    ("delta_margin", REAL, "change of the counting margin, mean over held-out videos"),
    ("delta_accuracy", REAL, "change of the accuracy, mean over held-out videos"),
    ("delta_expected_count", REAL, "change of the expected count, mean over held-out videos"),
)

SUMMARY = _schema(
    "One row per target and operation: its effect on held-out videos. Means are over all held-out videos with such "
    "questions, those in which the target never fires included as exact zeros.",
    ("target", TEXT, "number of the latent, `set` for the screen's set, or `set: LABEL`"),
    ("latents", pa.list_(WHOLE), "the latents that are edited together"),
    ("operation", TEXT, "operation, as written on the command line"),
    ("method", TEXT, "`exact`: every number comes from a run of the edited model"),
    ("selected_by", TEXT, "`given`, `screen` or `associated`"),
    ("firing_rate", REAL, "share of the reference tokens on which the latent fires; null for a set"),
    ("n_items", WHOLE, "held-out counting questions"),
    ("n_items_active", WHOLE, "those whose video it fires in"),
    ("n_videos", WHOLE, "held-out videos with counting questions"),
    ("n_videos_active", WHOLE, "those in which it fires"),
    ("delta_margin", REAL, "change of the counting margin"),
    ("delta_margin_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    ("delta_margin_high", REAL, "upper end"),
    ("delta_margin_active", REAL, "change of the counting margin, mean over the videos in which it fires"),
    ("delta_accuracy", REAL, "change of the counting accuracy"),
    ("right_to_wrong", REAL, "share of the counting answers that turned wrong"),
    ("wrong_to_right", REAL, "share of the counting answers that turned right"),
    ("delta_expected_count", REAL, "change of the expected count"),
    ("delta_expected_count_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    ("delta_expected_count_high", REAL, "upper end"),
    ("kl", REAL, "KL divergence of the new letter distribution from the old, in nats"),
    ("p_value", REAL, "two-sided sign-flip test of delta_margin over videos"),
    ("q_value", REAL, "Benjamini-Hochberg over all rows of this table"),
    ("detectable", REAL, "smallest |delta_margin| that such a test finds with 80 % power at 5 %"),
    ("n_controls", WHOLE, "controls with the same norms on the same tokens"),
    ("control_p95_random", REAL, "95th percentile of |delta_margin| of the random directions"),
    ("control_p95_covariance", REAL, "the same for directions drawn from the covariance of the activations"),
    ("control_p95_decoder", REAL, "the same for decoder directions of latents of like firing rate and norm"),
    ("control_p95", REAL, "largest of the three"),
    ("control_p_value", REAL, "(1 + controls with at least this |delta_margin|) / (1 + controls)"),
    ("beats_controls", FLAG, "|delta_margin| exceeds control_p95; null without controls"),
    ("delta_margin_control", REAL, "change of the margin of the control questions"),
    ("delta_margin_control_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    ("delta_margin_control_high", REAL, "upper end"),
    ("specificity", REAL, "|delta_margin| - |delta_margin_control|"),
    ("screened", REAL, "what the screen estimates for delta_margin (ablation and scaling only)"),
)

PROFILE = _schema(
    "One row per site and kind of question: the fall of the margin when every visual token becomes the mean one.",
    ("site", TEXT, "site whose visual residuals are replaced by their mean over the evaluated videos"),
    ("depth", WHOLE, "decoder layers before the site"),
    ("kind", TEXT, "kind of question, or `all counting`, `all control`"),
    ("counting", FLAG, "whether the kind is a counting kind"),
    ("n_items", WHOLE, "questions"),
    ("n_videos", WHOLE, "videos"),
    ("accuracy", REAL, "accuracy of the unedited model"),
    ("accuracy_replaced", REAL, "accuracy with the visual tokens replaced"),
    ("margin", REAL, "answer margin of the unedited model"),
    ("margin_replaced", REAL, "answer margin with the visual tokens replaced"),
    ("fall", REAL, "margin - margin_replaced"),
    ("fall_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    ("fall_high", REAL, "upper end"),
    ("fall_share", REAL, "fall divided by the fall at the projector; null where that is not positive"),
)
