"""Effects of single ablations from ablations of many latents at once: random masks and a sparse regression.

Each mask ablates a small share of the active latents together. To first order a mask's effect is the sum of its
members', which the LASSO takes apart; most are zero, so masks need not be as many as latents. Other latents are ablated
at the same time, so that what a latent does while another one could stand in for it is seen too.

Source: Tibshirani (1996) for the regression; Ilyas et al. (2022), datamodels, for regressing on random subsets.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

N_MASKS = 400
SHARE = 0.02
"""Share of the active latents that a mask ablates."""
FOLDS = 5
N_PENALTIES = 30

Real = NDArray[np.float64]


def draw_masks(
    n_latents: int, n_masks: int, share: float, generator: np.random.Generator
) -> Bool[np.ndarray, "mask n"]:
    """Draw which latents each mask ablates, so that all latents are in equally many masks, or one more.

    Args:
        n_latents: latents to draw from.
        n_masks: masks.
        share: share of the latents in a mask; at least one is.
        generator: source of the draws.
    """
    size = max(1, round(share * n_latents))
    masks = np.zeros((n_masks, n_latents), dtype=bool)
    left = np.zeros(0, dtype=np.int64)
    for mask in masks:
        own = left[:size]
        left = left[size:]
        while len(own) < size:  # the rest of a mask comes from a new order of all others
            fresh = generator.permutation(np.setdiff1d(np.arange(n_latents), own))
            need = size - len(own)
            left = np.concatenate([fresh[need:], generator.permutation(own)]) if need < len(fresh) else fresh[:0]
            own = np.concatenate([own, fresh[:need]])
        mask[own] = True
    return masks


def effects_of_masks(
    masks: Bool[np.ndarray, "mask latent"], changes: Float[np.ndarray, "mask item"], seed: int
) -> Float[np.ndarray, "item latent"]:
    """Estimate what each latent's ablation alone changes, one regression per item.

    Args:
        masks: which latents each mask ablated.
        changes: change of each item's margin by each mask.
        seed: of the folds over masks that choose the penalty.
    """
    from sklearn.linear_model import LassoCV
    from sklearn.model_selection import KFold

    design = masks.astype(np.float64)
    found = np.zeros((changes.shape[1], masks.shape[1]))
    for item, change in enumerate(np.asarray(changes, dtype=np.float64).T):
        if np.ptp(change) == 0.0:  # no mask does anything, and no penalty could be chosen
            continue
        folds = KFold(FOLDS, shuffle=True, random_state=seed)
        # From the least penalty under which every coefficient is zero, down to a thousandth of it.
        most = np.abs((design - design.mean(axis=0)).T @ (change - change.mean())).max() / len(change)
        penalties = most * np.geomspace(1.0, 1e-3, N_PENALTIES)
        fitted = LassoCV(cv=folds, alphas=penalties, max_iter=5_000, tol=1e-3).fit(design, change)
        found[item] = fitted.coef_
    return found
