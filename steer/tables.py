"""The tables of the steer stage: names, types and meaning of every column.

Each schema documents itself: `SCHEMA.field(name).metadata[b"doc"]` says what the column holds. A *target* is what one
intervention edits together: one latent or a set of them, a row of `targets.parquet`. Margins are in nats.
"""

from __future__ import annotations

import pyarrow as pa

from ask.tables import FLAG, REAL, TEXT, WHOLE
from collect.artefact.table import column, table_schema
from steer.controls import FAMILIES

REASONS = ("given", "sweep", "associated", "set")
METHODS = ("exact", "direct", "masked", "gradient")
CHOSEN_AS = ("all", "leader", "drawn")
SCREEN_NAMES = METHODS[1:]
CLAIM_NAMES = (
    "specific",
    "not specific",
    "specificity not tested",
    "generic damage",
    "not beyond controls",
    "too few controls",
    "no effect on the margin",
    "undecided",
    "too few videos",
    "no controls",
)
DIRECTIONS = ("lower", "higher", "undecided")
SCOPES = ("subject", "task")


SCREEN = table_schema(
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
    column(
        "z_train", REAL, "the same divided by its standard error, with a floor (see steer.screens.gradient.standardise)"
    ),
    column("attribution_held_out", REAL, "as attribution_train, over held-out videos"),
    column("z_held_out", REAL, "as z_train, over held-out videos"),
    column(
        "attribution_noncounting", REAL, "as attribution_train, of the non-counting questions' margin, over all videos"
    ),
    column(
        "selected_by",
        TEXT,
        "why it is run on held-out videos: `given`, `sweep`, `associated`; null if it is not",
        null=True,
        among=REASONS,
    ),
)

SWEEP = table_schema(
    "One row per latent and train item where it fires: what its ablation changes; everywhere else that is exactly 0.",
    column("latent", WHOLE, "latent", least=0),
    column("item", TEXT, "item of items.parquet"),
    column("video_id", TEXT, "video"),
    column("subject", TEXT, "what a counting question counts; null for a non-counting question", null=True),
    column("counting", FLAG, "whether it is a counting question"),
    column(
        "method",
        TEXT,
        "`exact`: the edited model was run; else the best of the screens that reached the video",
        among=METHODS,
    ),
    column(
        "chosen_as",
        TEXT,
        "why it was run: its latent is a `leader` of the screens, it was `drawn`, or `all` were; null if it was not",
        null=True,
        among=CHOSEN_AS,
    ),
    column("n_tokens_edited", WHOLE, "visual tokens on which the latent fires", least=0),
    column("mean_norm", REAL, "mean norm of what it writes there"),
    column("delta_margin", REAL, "change of the answer margin; null if not exact"),
    column("delta_accuracy", REAL, "change of the accuracy; null if not exact"),
    column(
        "delta_expected_count", REAL, "change of the expected count; null if not exact, or for a non-counting question"
    ),
    column(
        "direct_delta_margin",
        REAL,
        "change of the margin if the tokens of the question alone see the ablation; null if not run",
    ),
    column("masked_delta_margin", REAL, "estimate of delta_margin from random masks; null if not run"),
    column("attribution", REAL, "the gradient's estimate of delta_margin", null=False),
    column("reach", REAL, "the same if no token's part of it cancelled another's", null=False),
)

SCREENS = table_schema(
    "One row per screen and subject: its estimates against exact effects, and what the leaders leave out.",
    column("screen", TEXT, "the screen", among=SCREEN_NAMES),
    column("subject", TEXT, "what the questions count"),
    column("n_videos", WHOLE, "train videos with such questions that it reached", least=0),
    column("n_latents", WHOLE, "latents that fire in them", least=0),
    column("n_exact", WHOLE, "those that were run exactly in all videos, with which it is compared", least=0),
    column("n_large", WHOLE, "those with |delta_margin| above 0.1 nats", least=0),
    column("rank_correlation", REAL, "Spearman's, of its estimates with the exact effects"),
    column("rank_correlation_large", REAL, "the same over the large ones"),
    column("sign_agreement_large", REAL, "share of the large ones whose sign it has"),
    column("n_top", WHOLE, "20, or the latents with any effect where they are fewer", least=0),
    column("recall_top", REAL, "share of the n_top largest exact effects that are among its own n_top"),
    column("n_rest", WHOLE, "edits, one latent in one of all such videos, that the leaders leave out", least=0),
    column("n_drawn", WHOLE, "those that were drawn at random and run exactly", least=0),
    column("n_missed", WHOLE, "those of them with |delta_margin| above 0.1 nats on this subject", least=0),
    column("missed_bound", REAL, "most that the share of such edits in the rest can be, at 95 % (Clopper-Pearson)"),
)

_CONTRAST = (
    column("n_items", WHOLE, "matched questions: those of this group", least=0),
    column("n_videos", WHOLE, "videos with such questions", least=0),
    column("n_videos_active", WHOLE, "those in which the edit touches a token", least=0),
    column("delta_margin", REAL, "change of the margin of the matched questions, mean over their videos"),
    column("delta_margin_low", REAL, "lower end of its 95 % bootstrap interval over videos, null for one video"),
    column("delta_margin_high", REAL, "upper end"),
    column("p_value", REAL, "two-sided sign-flip test of delta_margin over videos"),
    column(
        "detectable",
        REAL,
        "|delta_margin| that such a test, taken alone, finds with 80 % power at 5 %; null where fewer than six videos "
        "have an effect",
    ),
    column("delta_expected_count", REAL, "change of the expected count in the matched questions"),
    column("delta_expected_count_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    column("delta_expected_count_high", REAL, "upper end"),
    column("delta_margin_other", REAL, "change of the margin of all other counting questions"),
    column("delta_margin_other_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    column("delta_margin_other_high", REAL, "upper end"),
    column("delta_margin_noncounting", REAL, "change of the margin of the non-counting questions"),
    column("delta_margin_noncounting_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    column("delta_margin_noncounting_high", REAL, "upper end"),
    column("contrast", REAL, "delta_margin - delta_margin_other"),
    column("contrast_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    column("contrast_high", REAL, "upper end"),
)

LATENT_SUBJECTS = table_schema(
    "One row per latent that fires and group of counting questions: its ablation on the train videos.",
    column("latent", WHOLE, "latent", least=0),
    column("scope", TEXT, "`subject`: all questions that count alike; `task`: all with one text", among=SCOPES),
    column("name", TEXT, "the subject, or the text"),
    column("method", TEXT, "`exact`: the edited model was run; else the screen that `estimate` is of", among=METHODS),
    column("attribution", REAL, "the gradient's estimate of delta_margin, mean over the videos with such questions"),
    column(
        "direct_delta_margin",
        REAL,
        "as delta_margin if the questions alone see the ablation; null unless run in all videos where it fires",
    ),
    column("estimate", REAL, "estimate of delta_margin by the best screen that reached some of these videos"),
    *_CONTRAST,
)

TARGET_SUBJECTS = table_schema(
    "One row per target, operation and subject: its effect on the held-out videos.",
    column("target", TEXT, "id of the target in targets.parquet"),
    column("operation", TEXT, "operation, as written on the command line"),
    column("subject", TEXT, "what the matched questions count"),
    column("is_chosen", FLAG, "whether it is the subject for which the target was chosen"),
    *_CONTRAST,
)

TARGETS = table_schema(
    "One row per target: what is edited together, and how it was chosen.",
    column("target", TEXT, "its id: the key in every other table, and not to be taken apart"),
    column("latents", pa.list_(WHOLE), "the latents that are edited together"),
    column("label", TEXT, "the label whose latents they are; null for a single latent and the screen's set", null=True),
    column("label_kind", TEXT, "kind of that label; null without one", null=True),
    column("selected_by", TEXT, "`given`, `sweep` or `associated`", among=REASONS),
    column("subject", TEXT, "subject whose questions it is held against, chosen on the train videos"),
    column(
        "train_delta_margin",
        REAL,
        "effect on these questions in the train videos by which it was chosen (sum over a set); null if not run",
    ),
)

EFFECTS = table_schema(
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
    column("delta_expected_count", REAL, "change of the expected count; null for a non-counting question"),
    column("delta_option_mass", REAL, "change of the probability of the three letters together"),
    column(
        "kl",
        REAL,
        "KL divergence of the new letter distribution from the old, in nats, mean over the orders of the options",
    ),
)

CONTROLS = table_schema(
    "One row per control: a direction put on the same tokens with the same norms as a target's ablation or other edit.",
    column("target", TEXT, "id of the target in targets.parquet"),
    column("magnitude", TEXT, "edit whose norms the control has; operations with equal norms share their controls"),
    column("family", TEXT, "random, covariance or decoder", among=FAMILIES),
    column("index", WHOLE, "number of the control within its family", least=0),
    column("source", pa.list_(WHOLE), "latents whose decoder directions were used (family decoder); empty otherwise"),
    column("n_items", WHOLE, "held-out questions of the target's subject, edited or not", least=0),
    column("n_videos", WHOLE, "held-out videos with such questions", least=0),
    column("delta_margin", REAL, "change of their margin, mean over these videos", null=False),
    column("delta_accuracy", REAL, "change of their accuracy, likewise"),
    column("delta_expected_count", REAL, "change of their expected count, likewise"),
)

_BY_NAME = {field.name: field for field in _CONTRAST}

SUMMARY = table_schema(
    "One row per target and operation: its effect on the held-out questions of its subject. Means are over all videos "
    "with such questions, those in which the target never fires included as exact zeros.",
    column("target", TEXT, "id of the target in targets.parquet"),
    column("latents", pa.list_(WHOLE), "the latents that are edited together"),
    column("operation", TEXT, "operation, as written on the command line"),
    column("method", TEXT, "`exact`: every number comes from a run of the edited model", among=METHODS),
    column("selected_by", TEXT, "`given`, `sweep` or `associated`", among=REASONS),
    column("subject", TEXT, "what the matched questions count"),
    column("firing_rate", REAL, "share of the reference tokens on which the latent fires; null for a set"),
    *_CONTRAST,
    column("n_items_active", WHOLE, "matched questions whose video it fires in", least=0),
    column("delta_margin_active", REAL, "change of the matched margin, mean over the videos in which it fires"),
    column("delta_accuracy", REAL, "change of the accuracy of the matched questions"),
    column("right_to_wrong", REAL, "share of their answers that turned wrong"),
    column("wrong_to_right", REAL, "share of their answers that turned right"),
    column("kl", REAL, "KL divergence of the new letter distribution from the old, in nats"),
    column("q_value", REAL, "Benjamini-Hochberg over p_value within the row's family"),
    column("family", TEXT, "which rows are one family: single latents or sets, one operation, one subject"),
    column("n_controls", WHOLE, "controls with the same norms on the same tokens", least=0),
    *(column(f"control_max_{name}", REAL, f"largest |delta_margin| of the controls `{name}`") for name in FAMILIES),
    column("control_max", REAL, "largest of the three"),
    column("control_p_value", REAL, "(1 + controls with at least this |delta_margin|) / (1 + controls)"),
    column("control_q_value", REAL, "Benjamini-Hochberg over control_p_value within the row's family"),
    column("confirmed", FLAG, "q_value and control_q_value are both below 0.05; null without controls", null=True),
    column("specificity", REAL, "|delta_margin| - the larger of |delta_margin_other| and |delta_margin_noncounting|"),
)

CLAIMS = table_schema(
    "One row per target and operation: what the held-out effects allow to say, and by which rule.",
    column("target", TEXT, "id of the target in targets.parquet"),
    column("operation", TEXT, "operation, as written on the command line"),
    column("subject", TEXT, "what the matched questions count"),
    column("family", TEXT, "rows over which its q-values are taken"),
    column("claim", TEXT, "what is claimed", among=CLAIM_NAMES),
    column("rule", TEXT, "the rule that it follows, with its thresholds"),
    column("direction", TEXT, "where the expected count of the matched questions goes", among=DIRECTIONS),
    column(
        "opposed",
        FLAG,
        "whether the opposite operation moves the expected count the other way, both beyond their intervals (for "
        "`ablate` and `scale:2`, as in doses.parquet where it has the target); null where none was run",
        null=True,
    ),
    column("bound", REAL, "the larger of detectable and the sizes of the interval's ends"),
    column("n_videos", WHOLE, "held-out videos with matched questions", least=0),
    *(_BY_NAME[name] for name in ("n_videos_active", "delta_margin", "delta_margin_low", "delta_margin_high")),
    *(_BY_NAME[f"delta_margin_{of}{end}"] for of in ("other", "noncounting") for end in ("", "_low", "_high")),
    column(
        "beside_subject",
        TEXT,
        "of the other subjects with six held-out videos or more, the one whose questions move most; null if none",
        null=True,
    ),
    column("delta_margin_beside", REAL, "change of the margin of its questions; null if there is none"),
    *(_BY_NAME[f"delta_expected_count{end}"] for end in ("", "_low", "_high")),
    column("q_value", REAL, "as in summary.parquet"),
    column("control_q_value", REAL, "as in summary.parquet"),
    column("n_controls", WHOLE, "controls that it was compared with", least=0),
    column(
        "controls_needed",
        REAL,
        "where these are too few to tell: how many each row of its family needs at least; else null",
    ),
)

DISSOCIATIONS = table_schema(
    "One row per pair of specific latents with different subjects, of which each moves the other's questions by at "
    "most a quarter of what it does to its own.",
    column("one", TEXT, "target", null=False),
    column("one_subject", TEXT, "its subject"),
    column("other", TEXT, "the other target"),
    column("other_subject", TEXT, "its subject"),
    column("one_on_one", REAL, "change of the margin of one's questions by ablating one"),
    column("one_on_other", REAL, "of the other's questions by ablating one"),
    column("other_on_one", REAL, "of one's questions by ablating the other"),
    column("other_on_other", REAL, "of the other's questions by ablating the other"),
)
