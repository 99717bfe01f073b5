"""Labels of whole videos: with which latents they are tested.

No video has both positive and negative units of such a label, so nothing can be compared within a video. Latents are
chosen by the AUROC over the train videos, each with its largest activation, if it lies clearly above ½ for that many
videos. Whether they hold is decided on held-out videos by permutation and interval, as for any other label.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from features.association.selection import PER_LABEL, SCREEN_Z, Selection
from features.labels.corpus import Corpus
from features.labels.labelling import QUESTIONS


def rank_sum_z(
    auroc: Float64[np.ndarray, "latent label"],
    n_positive: Int64[np.ndarray, " label"],
    n_negative: Int64[np.ndarray, " label"],
) -> Float64[np.ndarray, "latent label"]:
    """Standard errors that AUROCs lie above ½ without ties; NaN where a side is empty.

    Source: Mann and Whitney 1947: the variance of U is n m (n + m + 1) / 12, and AUROC is U / (n m).
    """
    n_pairs = (n_positive * n_negative).astype(np.float64)
    error = np.full(len(n_pairs), np.nan)
    np.divide(n_positive + n_negative + 1, 12 * n_pairs, out=error, where=n_pairs > 0)
    return (auroc - 0.5) / np.sqrt(error)


def best_for_videos(
    auroc: Float64[np.ndarray, "latent label"], corpus: Corpus
) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]:
    """The latents that tell each label of whole videos best on train, `PER_LABEL` at most.

    Args:
        auroc: of all latents and all labels of whole videos, on the train videos.
        corpus: labels.

    Returns:
        Latents and labels, as indices into `Corpus.all_labels`.
    """
    nothing = np.empty(0, dtype=np.int64)
    if QUESTIONS not in corpus.labels:
        return nothing, nothing
    labels = corpus.labels[QUESTIONS].select(corpus.split(held_out=False))
    first = corpus.first_labels()[QUESTIONS]
    n_positive = np.asarray(labels.positive.sum(axis=0), dtype=np.int64).reshape(-1)
    n_touched = np.asarray(labels.touched[labels.eligible].sum(axis=0), dtype=np.int64).reshape(-1)
    z = rank_sum_z(auroc, n_positive, int(labels.eligible.sum()) - n_touched)
    ranked = np.where(np.nan_to_num(z) >= SCREEN_Z, auroc, -np.inf)
    best = np.argsort(-ranked, axis=0, kind="stable")[:PER_LABEL]
    place, label = np.nonzero(np.take_along_axis(ranked, best, axis=0) > -np.inf)
    return best[place, label].astype(np.int64), (first + label).astype(np.int64)


def with_pairs(
    selection: Selection, latent: Int64[np.ndarray, " pair"], label: Int64[np.ndarray, " pair"]
) -> Selection:
    """The selection with further pairs, each once, ordered by latent and label."""
    pairs = np.concatenate([np.stack([selection.latent, selection.label]), np.stack([latent, label])], axis=1)
    distinct = np.unique(pairs, axis=1)
    return Selection(latent=distinct[0], label=distinct[1], top=selection.top, runner_up=selection.runner_up)
