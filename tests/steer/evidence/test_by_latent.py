"""latent_subjects.parquet by hand: which screen an estimate is of, and over which videos its mean goes."""

import numpy as np
import pandas as pd
import pytest

from steer.evidence.summary import by_latent
from steer.screens.estimates import with_estimates
from tests.steer.toy import SUBJECT, counting_item

ITEMS = (counting_item("a", 0, held_out=False), counting_item("b", 0, held_out=False))
NAN = float("nan")


def row(
    latent: int, video: str, attribution: float, direct: float = NAN, masked: float = NAN, exact: float = NAN
) -> dict:  # type: ignore[type-arg]
    return {
        "latent": latent,
        "item": f"{video}/0",
        "video_id": video,
        "method": "gradient" if np.isnan(exact) else "exact",
        "delta_margin": exact,
        "delta_expected_count": exact,
        "counting": True,
        "attribution": attribution,
        "reach": abs(attribution),
        "direct_delta_margin": direct,
        "masked_delta_margin": masked,
    }


def found(rows: list[dict]) -> pd.DataFrame:  # type: ignore[type-arg]
    table = by_latent(with_estimates(pd.DataFrame(rows)), ITEMS, seed=0)
    return table[(table["scope"] == "subject") & (table["name"] == SUBJECT)].set_index("latent")


def test_estimates_are_of_the_best_screen_over_the_videos_that_it_reached() -> None:
    # The direct screen reached video a alone; latent 1 was run exactly and has direct effects in both.
    table = found(
        [
            row(0, "a", -1.0, direct=-4.0),
            row(0, "b", -3.0),
            row(1, "a", -1.0, direct=-2.0, exact=-6.0),
            row(1, "b", -1.0, direct=-4.0, exact=-8.0),
            row(2, "b", -5.0),
            row(3, "a", -1.0, direct=-2.0),
        ]
    )
    assert table["method"].to_dict() == {0: "direct", 1: "exact", 2: "gradient", 3: "direct"}
    # Latent 2 is silent in video a; latent 3 is silent in b, where its effect is known to be 0.
    assert table["direct_delta_margin"].dropna().to_dict() == {1: -3.0, 3: -1.0}
    assert table["estimate"].to_dict() == {0: -4.0, 1: -2.0, 2: -2.5, 3: -1.0}
    assert table["attribution"].to_dict() == {0: -2.0, 1: -1.0, 2: -2.5, 3: -0.5}
    assert table.loc[1, "delta_margin"] == -7.0
    assert table.loc[[0, 2, 3], "delta_margin"].isna().all()


def test_without_another_screen_the_gradient_stands_alone() -> None:
    table = found([row(0, "a", -1.0, exact=-6.0), row(1, "b", -3.0)])
    assert table["method"].to_dict() == {0: "exact", 1: "gradient"}
    assert table["direct_delta_margin"].isna().all()
    assert table["estimate"].to_dict() == {0: -0.5, 1: -1.5}
    masked = found([row(0, "a", -1.0, masked=-9.0), row(0, "b", -1.0, masked=1.0)])
    assert (masked.loc[0, "method"], masked.loc[0, "estimate"]) == ("masked", pytest.approx(-4.0))
