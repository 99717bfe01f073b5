"""The tables of the features stage: their columns, and the catalogue made from what was measured.

A missing value is null. `docs/formats.md` says what every column means.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float64

from collect.artefact.table import column, table_schema
from features.activity import Activity
from features.association.associate import Associations
from features.labels.corpus import Corpus
from features.labels.labelling import KINDS

LEVELS, SPLITS = ("token", "frame", "video"), ("train", "held_out")
ASKED_KINDS = ("object", "action", "sound")
"""Kinds of label that a question can be about."""
_KIND = f"{', '.join(f'`{kind}`' for kind in KINDS[:-1])} or `{KINDS[-1]}`"
CATALOGUE = table_schema(
    "One row per latent. Scores are those on held-out videos; the label was chosen on train videos.",
    column("latent", pa.int32(), "latent", least=0),
    column("is_dead", pa.bool_(), "whether it fires at no stored token"),
    column("firing_rate", pa.float64(), "share of the stored tokens at which it fires", null=False),
    column("n_tokens_active", pa.int64(), "tokens at which it fires", least=0),
    column("n_videos_active", pa.int64(), "videos in which it fires", least=0),
    column("max_activation", pa.float64(), "largest activation; 0 if it never fires", null=False),
    column("mean_active", pa.float64(), "mean activation over the tokens at which it fires; null if none"),
    column(
        "decoder_norm",
        pa.float64(),
        "norm of its decoder direction: how far one unit of activation moves the residual",
        null=False,
    ),
    column("temporal_autocorrelation", pa.float64(), "correlation of a patch with itself one time step later"),
    column("spatial_autocorrelation", pa.float64(), "correlation of a patch with its neighbours in the frame"),
    column("mean_run_length", pa.float64(), "mean number of consecutive time steps for which a patch stays active"),
    column("labelled", pa.bool_(), "whether `top_label` is its name"),
    column(
        "top_label",
        pa.string(),
        "the label that explains it best on train videos, whether it is its name or not; null if none explains it",
        null=True,
    ),
    column(
        "top_label_kind",
        pa.string(),
        f"{_KIND}; null without one",
        null=True,
        among=KINDS,
    ),
    column("top_label_level", pa.string(), "`token`, `frame` or `video`; null without one", null=True, among=LEVELS),
    column("top_auroc", pa.float64(), "AUROC for that label"),
    column("top_within_video_auroc", pa.float64(), "within-video AUROC"),
    column("top_within_low", pa.float64(), "lower end of its 95 % interval"),
    column("top_q_value", pa.float64(), "q-value"),
    column("top_control_auroc_p95", pa.float64(), "95th percentile of the controls' AUROC"),
    column(
        "runner_up_label",
        pa.string(),
        "the label that explains it next best on train videos; null if there is none",
        null=True,
    ),
    column("runner_up_kind", pa.string(), "kind of that label; null without one", null=True, among=KINDS),
    column("runner_up_level", pa.string(), "level of that label; null without one", null=True, among=LEVELS),
    column("runner_up_auroc", pa.float64(), "AUROC for that label"),
    column("gap", pa.float64(), "`top_auroc` − `runner_up_auroc`"),
    column("correlation", pa.float64(), "correlation of its activation with `top_label` over all tokens"),
    column("explained", pa.float64(), "share of the activation's variance that `top_label` explains"),
    column("explained_low", pa.float64(), "lower end of its 95 % interval"),
    column(
        "explained_by_place_time",
        pa.float64(),
        "share that the mean activation on train videos at each place and time explains",
    ),
    column("runner_up_correlation", pa.float64(), "correlation with `runner_up_label`"),
    column("also", pa.list_(pa.string()), "labels that held-out videos cannot tell from `top_label`; null without one"),
    column("n_units", pa.int64(), "positive units of `top_label`; null without one", null=True, least=0),
    column("n_videos_positive", pa.int64(), "videos with positive units; null without `top_label`", null=True, least=0),
    column(
        "baseline_auroc_p95",
        pa.float64(),
        "95th percentile of the AUROC of a baseline SAE's latents; null without a baseline",
    ),
    column(
        "unnamed_because",
        pa.string(),
        "the first condition of a name that `top_label` misses; null for a name, and without a label",
        null=True,
    ),
)
ASSOCIATIONS = table_schema(
    "Two rows per tested (latent, label): one for the train videos, on which it was selected, one for the "
    "held-out ones.",
    column("latent", pa.int32(), "latent", least=0),
    column("label", pa.string(), "label"),
    column(
        "kind",
        pa.string(),
        _KIND,
        among=KINDS,
    ),
    column("level", pa.string(), "`token`, `frame` or `video`", among=LEVELS),
    column("split", pa.string(), "`train` or `held_out`", among=SPLITS),
    column("auroc", pa.float64(), "AUROC over all units of the split"),
    column("auroc_low", pa.float64(), "lower end of its 95 % interval; null on train"),
    column("auroc_high", pa.float64(), "upper end"),
    column("auroc_background", pa.float64(), "AUROC against background tokens; null where there are none"),
    column("within_video_auroc", pa.float64(), "mean over videos of the AUROC within a video"),
    column("within_low", pa.float64(), "lower end of its 95 % interval; null on train"),
    column("within_high", pa.float64(), "upper end"),
    column("ap", pa.float64(), "average precision"),
    column("base_rate", pa.float64(), "share of positives"),
    column("f1", pa.float64(), "F1 at `threshold`"),
    column("threshold", pa.float64(), "activation with the best F1 on train"),
    column("n_positive", pa.int64(), "positive units", least=0),
    column("n_negative", pa.int64(), "negative units", least=0),
    column("n_videos", pa.int64(), "videos with positives and negatives", least=0),
    column("n_videos_positive", pa.int64(), "videos with positives", least=0),
    column("hidden_share", pa.float64(), "share of the positives where the object is hidden"),
    column("videos_share", pa.float64(), "share of the videos in which the latent tells the label"),
    column("p_value", pa.float64(), "permutation test, for places and times a t test over videos; null on train"),
    column("q_value", pa.float64(), "Benjamini-Hochberg over all tested pairs; null on train"),
    column("control_auroc_p95", pa.float64(), "95th percentile of the controls' AUROC; null on train"),
    column(
        "control_auroc_best",
        pa.float64(),
        "AUROC of the control that train videos would have picked; null on train",
    ),
    column("correlation", pa.float64(), "correlation of the activation with the label over all tokens"),
    column(
        "baseline_auroc_p95",
        pa.float64(),
        "95th percentile of the AUROC of a baseline SAE's latents; null on train and without a baseline",
    ),
    column(
        "baseline_auroc_best",
        pa.float64(),
        "AUROC of the latent of theirs that train videos would have picked; null likewise",
    ),
    column("holds", pa.bool_(), "whether the association holds; false on train"),
)
EXEMPLARS = table_schema(
    "The tokens with the highest activation of each latent, at most one per video unless asked otherwise.",
    column("latent", pa.int32(), "latent", least=0),
    column("rank", pa.int32(), "0 for the highest", least=0),
    column("video_id", pa.string(), "video"),
    column("split", pa.string(), "`train` or `held_out`", among=SPLITS),
    column("t", pa.int32(), "time step", least=0),
    column("row", pa.int32(), "row of the patch", least=0),
    column("col", pa.int32(), "column of the patch", least=0),
    column("frame_id", pa.int64(), "first frame of the time step", least=0),
    column("time_s", pa.float64(), "start of the time step"),
    column("activation", pa.float32(), "latent activation"),
    column("x1", pa.float64(), "left of the patch box"),
    column("y1", pa.float64(), "top of the patch box"),
    column("x2", pa.float64(), "right of the patch box"),
    column("y2", pa.float64(), "bottom of the patch box"),
    column("media", pa.string(), "picture of the video's frames, relative to the folder; empty if not drawn"),
    column("media_frame", pa.string(), "picture of this frame, relative to the folder; empty if not drawn"),
)


def build_catalogue(
    activity: Activity, decoder_norm: Float64[np.ndarray, " latent"], found: Associations, corpus: Corpus
) -> pd.DataFrame:
    """One row per latent: what it does, and the label that explains it most.

    `top_label` is the best label on train, also where it is not the latent's name; `labelled` says whether it is.
    Scores are those on held-out videos.
    """
    n_latents = len(decoder_norm)
    table = pd.DataFrame(
        {
            "latent": np.arange(n_latents),
            "is_dead": activity.n_tokens_active == 0,
            "firing_rate": activity.firing_rate,
            "n_tokens_active": activity.n_tokens_active,
            "n_videos_active": activity.n_videos_active,
            "max_activation": activity.max_activation,
            "mean_active": activity.mean_active,
            "decoder_norm": decoder_norm,
            "temporal_autocorrelation": activity.temporal_autocorrelation,
            "spatial_autocorrelation": activity.spatial_autocorrelation,
            "mean_run_length": activity.mean_run_length,
        }
    )
    rows = {
        (row["latent"], row["kind"], row["level"], row["label"]): row
        for row in found.table.to_dict("records")
        if row["split"] == "held_out"
    }
    described = [_describe(latent, found, corpus, rows) for latent in range(n_latents)]
    columns = [name for name in CATALOGUE.names if name not in table]
    return pd.concat([table, pd.DataFrame(described, columns=columns)], axis=1)[CATALOGUE.names]


def _describe(
    latent: int, found: Associations, corpus: Corpus, rows: Mapping[tuple[int, str, str, str], Mapping[str, object]]
) -> dict[str, object]:
    labels = corpus.all_labels()
    described: dict[str, object] = {**dict.fromkeys(CATALOGUE.names), "labelled": False}
    top, runner_up = int(found.selection.top[latent]), int(found.selection.runner_up[latent])
    if top < 0:
        return described
    space, name = labels[top].space, corpus.name(labels[top])
    row = rows[latent, space.kind, space.level, name]
    names = found.names
    described |= {
        "labelled": bool(names.labelled[latent]),
        "top_label": name,
        "top_label_kind": space.kind,
        "top_label_level": space.level,
        "top_auroc": row["auroc"],
        "top_within_video_auroc": row["within_video_auroc"],
        "top_within_low": row["within_low"],
        "top_q_value": row["q_value"],
        "top_control_auroc_p95": row["control_auroc_p95"],
        "correlation": names.correlation[latent],
        "explained": names.explained[latent],
        "explained_low": names.explained_low[latent],
        "explained_by_place_time": names.explained_by_place_time[latent],
        "also": names.also[latent],
        "n_units": row["n_positive"],
        "n_videos_positive": row["n_videos_positive"],
        "baseline_auroc_p95": row["baseline_auroc_p95"],
        "unnamed_because": names.unnamed_because[latent],
    }
    if runner_up >= 0:
        other = labels[runner_up]
        score = float(found.runner_up_auroc[latent])
        described |= {
            "runner_up_label": corpus.name(other),
            "runner_up_kind": other.space.kind,
            "runner_up_level": other.space.level,
            "runner_up_auroc": score,
            "gap": float(str(row["auroc"])) - score,
            "runner_up_correlation": float(found.explanation.held_out[latent, runner_up]),
        }
    return described
