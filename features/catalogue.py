"""The tables of the features stage: their columns, and the catalogue made from what was measured.

A missing value is null. `docs/formats.md` says what every column means.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float64

from collect.artefact.table import column
from features.activity import Activity
from features.association.associate import Associations
from features.labels.corpus import Corpus
from features.labels.labelling import KINDS

LEVELS, SPLITS = ("token", "frame"), ("train", "held_out")
ASKED_KINDS = ("object", "action", "sound")
"""Kinds of label that a question can be about."""
CATALOGUE = pa.schema(
    [
        column("latent", pa.int32(), least=0),
        column("is_dead", pa.bool_()),
        column("firing_rate", pa.float64(), null=False),
        column("n_tokens_active", pa.int64(), least=0),
        column("n_videos_active", pa.int64(), least=0),
        column("max_activation", pa.float64(), null=False),
        column("mean_active", pa.float64()),
        column("decoder_norm", pa.float64(), null=False),
        column("temporal_autocorrelation", pa.float64()),
        column("spatial_autocorrelation", pa.float64()),
        column("mean_run_length", pa.float64()),
        column("labelled", pa.bool_()),
        column("top_label", pa.string(), null=True),
        column("top_label_kind", pa.string(), null=True, among=KINDS),
        column("top_label_level", pa.string(), null=True, among=LEVELS),
        column("top_auroc", pa.float64()),
        column("top_within_video_auroc", pa.float64()),
        column("top_within_low", pa.float64()),
        column("top_q_value", pa.float64()),
        column("top_control_auroc_p95", pa.float64()),
        column("runner_up_label", pa.string(), null=True),
        column("runner_up_kind", pa.string(), null=True, among=KINDS),
        column("runner_up_level", pa.string(), null=True, among=LEVELS),
        column("runner_up_auroc", pa.float64()),
        column("gap", pa.float64()),
        column("correlation", pa.float64()),
        column("explained", pa.float64()),
        column("explained_low", pa.float64()),
        column("explained_by_place_time", pa.float64()),
        column("runner_up_correlation", pa.float64()),
        column("also", pa.list_(pa.string())),
        column("n_units", pa.int64(), null=True, least=0),
        column("n_videos_positive", pa.int64(), null=True, least=0),
        column("baseline_auroc_p95", pa.float64()),
        column("unnamed_because", pa.string(), null=True),
    ]
)
ASSOCIATIONS = pa.schema(
    [
        column("latent", pa.int32(), least=0),
        column("label", pa.string()),
        column("kind", pa.string(), among=KINDS),
        column("level", pa.string(), among=LEVELS),
        column("split", pa.string(), among=SPLITS),
        column("auroc", pa.float64()),
        column("auroc_low", pa.float64()),
        column("auroc_high", pa.float64()),
        column("auroc_background", pa.float64()),
        column("within_video_auroc", pa.float64()),
        column("within_low", pa.float64()),
        column("within_high", pa.float64()),
        column("ap", pa.float64()),
        column("base_rate", pa.float64()),
        column("f1", pa.float64()),
        column("threshold", pa.float64()),
        column("n_positive", pa.int64(), least=0),
        column("n_negative", pa.int64(), least=0),
        column("n_videos", pa.int64(), least=0),
        column("n_videos_positive", pa.int64(), least=0),
        column("hidden_share", pa.float64()),
        column("videos_share", pa.float64()),
        column("p_value", pa.float64()),
        column("q_value", pa.float64()),
        column("control_auroc_p95", pa.float64()),
        column("control_auroc_best", pa.float64()),
        column("correlation", pa.float64()),
        column("baseline_auroc_p95", pa.float64()),
        column("baseline_auroc_best", pa.float64()),
        column("holds", pa.bool_()),
    ]
)
EXEMPLARS = pa.schema(
    [
        column("latent", pa.int32(), least=0),
        column("rank", pa.int32(), least=0),
        column("video_id", pa.string()),
        column("split", pa.string(), among=SPLITS),
        column("t", pa.int32(), least=0),
        column("row", pa.int32(), least=0),
        column("col", pa.int32(), least=0),
        column("frame_id", pa.int64(), least=0),
        column("time_s", pa.float64()),
        column("activation", pa.float32()),
        column("x1", pa.float64()),
        column("y1", pa.float64()),
        column("x2", pa.float64()),
        column("y2", pa.float64()),
        column("media", pa.string()),
        column("media_frame", pa.string()),
    ]
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
        score = float(found.held_out_auroc[latent, runner_up])
        described |= {
            "runner_up_label": corpus.name(other),
            "runner_up_kind": other.space.kind,
            "runner_up_level": other.space.level,
            "runner_up_auroc": score,
            "gap": float(str(row["auroc"])) - score,
            "runner_up_correlation": float(found.explanation.held_out[latent, runner_up]),
        }
    return described
