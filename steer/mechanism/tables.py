"""The tables of mechanisms: names, types and meaning of every column.

All are about held-out videos and the questions of one subject. Counts are changes of the expected count.
"""

from __future__ import annotations

import pyarrow as pa

from ask.tables import FLAG, REAL, TEXT, WHOLE
from collect.artefact.table import column, table_schema

SHAPES = ("rising", "falling", "not monotone", "undecided")
EVENT_EDITS = (
    "ablate",
    "random",
    "insert latent",
    "insert others",
    "insert codes",
    "insert residual",
    "insert quiet residual",
)
ASPECTS = ("dose", "necessity", "sufficiency", "exchange", "rivals", "reading", "route", "counter", "set")
RIVAL_NAMES = ("count difference", "mean shift", "moved")
TOO_FEW = "too few videos"
"""The verdict where nothing can be said."""
UNDECIDED = "undecided"
"""The verdict where the numbers speak neither for a statement nor against it; it may follow after a colon."""
AIMS = ("destroy", "restore")
ROUTE_NAMES = ("free", "attention kept", "later visual", "question", "answer", "all")

_TARGET = (
    column("target", TEXT, "id of the target in targets.parquet"),
    column("subject", TEXT, "what the matched questions count"),
)

_LABEL = column(
    "label", TEXT, "annotated segments that are the events; null where strong firing stands for them", null=True
)


def _interval(name: str, meaning: str) -> tuple[pa.Field, ...]:
    return (
        column(name, REAL, meaning),
        column(f"{name}_low", REAL, "lower end of its 95 % bootstrap interval over videos"),
        column(f"{name}_high", REAL, "upper end"),
    )


DOSES = table_schema(
    "One row per target and dose: what the held-out questions of its subject answer when its activations are scaled.",
    *_TARGET,
    column("dose", REAL, "factor of the activations; 1 is the unedited model"),
    column("n_videos", WHOLE, "held-out videos with matched questions; silent ones count as zeros", least=0),
    *_interval("delta_margin", "change of the margin"),
    *_interval("delta_expected_count", "change of the expected count"),
    *_interval("step", "its change from the dose before; null for the first"),
    column("shape", TEXT, "how the expected count runs with the dose, the same in all rows of a target", among=SHAPES),
    column(
        "opposed",
        FLAG,
        "whether dose 0 and the first above 1 move the expected count in opposite directions, beyond their intervals",
    ),
)

SWAPS = table_schema(
    "One row per target, item and partner: its activations exchanged for those of another video with the question.",
    *_TARGET,
    column("item", TEXT, "item of items.parquet"),
    column("video_id", TEXT, "its video"),
    column("partner", TEXT, "video that the activations come from"),
    column("count", REAL, "right answer in the video"),
    column("partner_count", REAL, "right answer in the partner"),
    column("delta_margin", REAL, "change of the margin"),
    column("delta_expected_count", REAL, "change of the expected count"),
)

SWAP_SUMMARY = table_schema(
    "One row per target: how far swaps move the answers with the partner's count.",
    *_TARGET,
    column("n_swaps", WHOLE, "swaps with partners of other counts and of the same", least=0),
    column("n_videos", WHOLE, "videos with a swap", least=0),
    *_interval("slope", "change of the expected count per event that the partner has more, least squares over swaps"),
    *_interval("offset", "change of the expected count by a swap with a partner of the same count, by the same fit"),
)

EVENTS = table_schema(
    "One row per target, event and edit: one event taken out, or put into a frame without one.",
    *_TARGET,
    column("video_id", TEXT, "video"),
    column("event", WHOLE, "number of the event among those used of this video", least=0),
    column(
        "label", TEXT, "annotated segments that are the events; null where strong firing stands for them", null=True
    ),
    column("first_frame", WHOLE, "first time step of the event", least=0),
    column("n_frames", WHOLE, "time steps of the event", least=0),
    column("quiet_frame", WHOLE, "time step without an event into which content is put", least=0),
    column(
        "edit", TEXT, "what is done; `random` is the mean over directions of the norms of `ablate`", among=EVENT_EDITS
    ),
    column("has_room", FLAG, "whether an option is larger than the right answer, so that the count can rise"),
    column("n_tokens_edited", WHOLE, "visual tokens whose residual was changed", least=0),
    column("mean_norm", REAL, "mean norm of the change over those tokens"),
    column("delta_margin", REAL, "change of the margin of the matched questions"),
    column("delta_expected_count", REAL, "change of their expected count"),
    column("delta_answer", REAL, "change of the count that is answered"),
    column("by_one", REAL, "share of the answers that change by exactly one"),
    column("largest", REAL, "largest |change of the expected count| among the directions of `random`"),
)

EVENT_SUMMARY = table_schema(
    "One row per target: necessity and sufficiency at single events, in counts, each video's events averaged first.",
    *_TARGET,
    column(
        "label", TEXT, "annotated segments that are the events; null where strong firing stands for them", null=True
    ),
    column("n_events", WHOLE, "events", least=0),
    column("n_videos", WHOLE, "videos with such events", least=0),
    column("n_videos_with_room", WHOLE, "those whose count can rise, over which insertions are averaged", least=0),
    column("by_one", REAL, "share of the answers that the ablation at one event changes by exactly one"),
    *_interval("ablated", "necessity: change of the expected count by the ablation at one event"),
    *_interval("random", "the same by directions of its norms on the same tokens"),
    *_interval("inserted_latent", "sufficiency: change by the latent's activations of an event in a quiet frame"),
    *_interval("inserted_others", "change by all latents but it"),
    *_interval("inserted_codes", "change by all latents"),
    *_interval("inserted_residual", "change by the whole residual"),
    *_interval("inserted_quiet_residual", "change by the residual of another quiet frame"),
)

RIVALS = table_schema(
    "One row per target and rival: edits with the norms of its ablation, made without the SAE or on other tokens.",
    *_TARGET,
    column("rival", TEXT, "`count difference`, `mean shift` or `moved`", among=RIVAL_NAMES),
    column("n_draws", WHOLE, "draws: bootstrap samples of the train videos in both signs, or of other tokens", least=0),
    column("n_videos", WHOLE, "held-out videos with matched questions", least=0),
    *_interval("latent", "change of the expected count by the ablation"),
    *_interval("rival_largest", "the same by the draw that changes it most"),
    column("rival_margin", REAL, "change of the margin by that draw"),
    *_interval("ahead", "|change by the ablation| - |change by that draw|, mean over videos"),
)

SETS = table_schema(
    "One row per subject, aim and size: a set of latents that grew greedily on train videos.",
    column("subject", TEXT, "what the matched questions count"),
    column("aim", TEXT, "`destroy`: the set is ablated; `restore`: all latents but the set are", among=AIMS),
    column("size", WHOLE, "latents in the set", least=1),
    column("latents", pa.list_(WHOLE), "the set"),
    column("train_share", REAL, "share on the train videos, by which the set was chosen"),
    column("n_train_videos", WHOLE, "train videos on which it grew", least=0),
    column("n_videos", WHOLE, "held-out videos with matched questions", least=0),
    *_interval(
        "share", "share of the margin between the model and that without latents that the set destroys or restores"
    ),
)

PAIRS = table_schema(
    "One row per subject and pair of latents: their joint ablation against the sum of the two, by the excess on train.",
    column("subject", TEXT, "what the matched questions count"),
    column("one", WHOLE, "latent", least=0),
    column("other", WHOLE, "the other latent", least=0),
    column("n_videos", WHOLE, "held-out videos with matched questions", least=0),
    column("train_excess", REAL, "excess on the train videos"),
    *_interval("joint", "change of the margin by the ablation of both"),
    column("sum", REAL, "sum of the changes by the ablation of either"),
    *_interval("excess", "joint - sum"),
    column("stand_in", FLAG, "whether both together cost more than the sum, on train and beyond the held-out interval"),
)

COUNTERS = table_schema(
    "One row per subject and latent that runs with the number of events so far, and one for them together.",
    column("subject", TEXT, "what the questions count"),
    column("label", TEXT, "annotated segments that are the events"),
    column("latents", pa.list_(WHOLE), "the latent, or all of them"),
    column("n_train_videos", WHOLE, "train videos with annotated events", least=0),
    column("n_videos", WHOLE, "such held-out videos", least=0),
    column("train_gain", REAL, "gain on the train videos, by which it was chosen; null for several"),
    column("explained_time", REAL, "held-out share of its variation within videos that time explains"),
    column("explained_count", REAL, "the same by the number of events so far"),
    *_interval("gain", "what the number of events explains over what time does alone"),
    column("n_more", WHOLE, "videos with a partner in which one event more has begun by that frame", least=0),
    *_interval("state_more", "change of the expected count by the partner's activations in that frame"),
    *_interval("residual_more", "the same by the partner's whole residual there"),
    column("n_same", WHOLE, "videos with a partner in which as many events have begun", least=0),
    *_interval("state_same", "as state_more, from such a partner"),
    *_interval("residual_same", "as residual_more, from such a partner"),
)

FLOW = table_schema(
    "One row per target, route and window of layers: what the answer loses if it cannot read the events that way.",
    *_TARGET,
    column(
        "label", TEXT, "annotated segments that are the events; null where strong firing stands for them", null=True
    ),
    column(
        "route",
        TEXT,
        "tokens kept from reading the event's; `free`: none; `attention kept`: attention goes where it went unedited",
        among=ROUTE_NAMES,
    ),
    column("first_layer", WHOLE, "first layer of the window, counted from the site", least=0),
    column("last_layer", WHOLE, "last layer of the window", least=0),
    column("n_videos", WHOLE, "held-out videos with an event", least=0),
    *_interval("cut", "change of the expected count by the cut"),
    *_interval("control", "the same for as many frames without an event; null for windows of some layers"),
    *_interval("ablation", "change of the expected count by the target's ablation under the cut"),
)

MECHANISMS = table_schema(
    "One row per thing that is said of a target, or of a subject: a verdict and the rule that it follows.",
    column("target", TEXT, "id of the target in targets.parquet; null for what is said of a subject", null=True),
    column("subject", TEXT, "what the matched questions count"),
    column("aspect", TEXT, "what it is about", among=ASPECTS),
    column("verdict", TEXT, "what is said"),
    column("rule", TEXT, "the rule that it follows, with its thresholds"),
    column("value", REAL, "the number it rests on: a change of the expected count; of `set`, a share of the margin"),
    column("low", REAL, "lower end of its 95 % bootstrap interval over videos"),
    column("high", REAL, "upper end"),
    column("n_videos", WHOLE, "held-out videos", least=0),
)

MECHANISM_TABLES: dict[str, pa.Schema] = {
    "doses": DOSES,
    "swaps": SWAPS,
    "swap_summary": SWAP_SUMMARY,
    "events": EVENTS,
    "event_summary": EVENT_SUMMARY,
    "rivals": RIVALS,
    "sets": SETS,
    "pairs": PAIRS,
    "counters": COUNTERS,
    "flow": FLOW,
}
"""All of them by the name of their file."""
