"""By how much an SAE's latents are named better than those of a baseline SAE, by the same rules on the same videos."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64

from features.association.associate import Associations
from features.labels.corpus import Corpus
from features.labels.labelling import ASKED


def compare_with_baseline(found: Associations, baseline: Associations, corpus: Corpus) -> dict[str, Any]:
    """Names, the variance they explain, and how well the best latent of each label follows it, of both.

    The best latent of a label is picked on train videos and measured on held-out ones.

    Returns:
        `n_labelled` and `explained` (mean over the named latents) of the baseline; `best_correlation`, the mean over
        labels of objects, actions and sounds of the best latent's correlation, of both; `n_labels_better` of `n_labels`
        for which the SAE's best latent correlates more.
    """
    labels = [index for index, label in enumerate(corpus.all_labels()) if label.space in ASKED]
    own, theirs = (_best(associations, labels) for associations in (found, baseline))
    return {
        "n_labelled": int(baseline.names.labelled.sum()),
        "n_labelled_more": int(found.names.labelled.sum()) - int(baseline.names.labelled.sum()),
        "explained": _mean(baseline.names.explained[baseline.names.labelled]),
        "explained_more": _difference(
            _mean(found.names.explained[found.names.labelled]),
            _mean(baseline.names.explained[baseline.names.labelled]),
        ),
        "n_labels": len(labels),
        "best_correlation": _mean(theirs),
        "best_correlation_more": _difference(_mean(own), _mean(theirs)),
        "n_labels_better": int((own > theirs).sum()),
    }


def _best(associations: Associations, labels: list[int]) -> Float64[np.ndarray, " label"]:
    """Held-out correlation of each label with the latent that train videos pick for it."""
    picked = associations.explanation.train[:, labels].argmax(axis=0) if labels else np.empty(0, dtype=np.int64)
    return associations.explanation.held_out[picked, labels]


def _mean(values: Float64[np.ndarray, " value"]) -> float | None:
    return float(values.mean()) if len(values) else None


def _difference(own: float | None, theirs: float | None) -> float | None:
    return None if own is None or theirs is None else own - theirs
