"""Screens against exact effects, worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from steer.screens.agreement import agreement, missed_bound, screens
from steer.screens.estimates import with_estimates
from steer.tables import SCREENS


def test_agreement_by_hand() -> None:
    exact = np.array([-3.0, 0.5, 0.2, 0.01, 0.0, 0.0])
    estimate = np.array([-2.0, -0.4, 0.1, 0.02, 0.0, 5.0])
    found = agreement(exact, estimate)
    assert found["n_large"] == 3
    assert found["sign_agreement_large"] == pytest.approx(2 / 3)
    assert found["rank_correlation_large"] == pytest.approx(0.5)  # ranks 1 3 2 and 1 2 3
    # Four latents do anything; of the four largest estimates (5, -2, -0.4, 0.1) three are among them.
    assert (found["n_top"], found["recall_top"]) == (4, 0.75)
    nothing = agreement(np.zeros(4), np.ones(4))
    assert (nothing["n_top"], nothing["recall_top"], nothing["rank_correlation"]) == (0, None, None)


def test_the_bound_is_where_so_few_become_unlikely() -> None:
    for n_missed, n_drawn in ((0, 28), (2, 28), (5, 500)):
        assert binom.cdf(n_missed, n_drawn, missed_bound(n_missed, n_drawn, 1000)) == pytest.approx(0.05)
    assert missed_bound(0, 28, 1000) == pytest.approx(1 - 0.05 ** (1 / 28))
    assert missed_bound(3, 3, 10) == 1.0
    assert missed_bound(0, 0, 10) == 1.0
    assert missed_bound(0, 0, 0) == 0.0


def rows(latent: int, video: str, delta: float | None, chosen: str | None, direct: float | None = None) -> list[dict]:  # type: ignore[type-arg]
    """A latent's two lamp questions and one other question in a video."""
    return [
        {
            "latent": latent,
            "video_id": video,
            "item": f"{video}/{number}",
            "subject": "lamp" if number < 2 else None,
            "counting": number < 2,
            "method": "exact" if delta is not None else "gradient",
            "chosen_as": chosen,
            "delta_margin": delta,
            "attribution": -1.0,
            "reach": 1.0,
            "direct_delta_margin": direct,
            "masked_delta_margin": None,
        }
        for number in range(3)
    ]


def test_the_table_says_what_was_compared_and_what_was_missed() -> None:
    table = pd.DataFrame(
        [
            *rows(0, "a", -4.0, "leader", -3.0),
            *rows(0, "b", -2.0, "leader", -1.0),
            *rows(1, "a", 0.5, "drawn", 0.1),
            *rows(1, "b", None, None),
            *rows(2, "b", 0.1, "drawn", 0.0),
            *rows(3, "b", None, None),
        ]
    ).astype({"delta_margin": float, "direct_delta_margin": float, "masked_delta_margin": float})
    found = screens(with_estimates(table))
    assert list(found.columns) == SCREENS.names
    assert found["screen"].tolist() == ["direct", "gradient"]  # masks were not run
    direct, gradient = found.to_dict("records")
    assert direct["subject"] == "lamp"
    # Direct effects are known of all leaders in video a alone; latent 0 was run exactly in both.
    assert (direct["n_videos"], direct["n_latents"], direct["n_exact"]) == (1, 2, 1)
    assert (gradient["n_videos"], gradient["n_latents"], gradient["n_exact"]) == (2, 4, 1)
    assert gradient["n_large"] == 1
    # Left out are latent 1 in both videos, 2 and 3; of the two that were drawn, 0.5 is large and 0.1 is not.
    assert (gradient["n_rest"], gradient["n_drawn"], gradient["n_missed"]) == (4, 2, 1)
    assert gradient["missed_bound"] == pytest.approx(missed_bound(1, 2, 4))
    assert direct["recall_top"] == 1.0
