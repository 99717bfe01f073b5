"""Which latents lead, and what the direct screen says of the others."""

import numpy as np
import pandas as pd
import pytest

from steer.screens import estimates
from steer.screens.estimates import leading, n_leaders, with_estimates

NAN = float("nan")


def row(latent: int, item: str, reach: float, direct: float = NAN, *, counting: bool = True) -> dict[str, object]:
    return {
        "latent": latent,
        "item": f"a/{item}",
        "video_id": "a",
        "counting": counting,
        "attribution": -reach / 2,
        "reach": reach,
        "direct_delta_margin": direct,
        "masked_delta_margin": NAN,
    }


def test_leaders_are_a_number_or_a_share() -> None:
    assert [n_leaders(n) for n in (0, 10, 48, 512, 768, 10_000)] == [0, 10, 32, 32, 48, 625]


def test_latents_lead_on_one_of_the_counting_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "LEADERS", 1)
    table = pd.DataFrame(
        [
            row(0, "0", 3.0, -7.0),
            row(1, "0", 1.0),
            row(2, "0", 2.0, -0.5),
            row(0, "1", 0.1, -0.2),
            row(1, "1", 0.2),
            row(2, "1", 0.3, -0.1),
            row(0, "2", 0.0, counting=False),
            row(1, "2", 9.0, counting=False),
            row(2, "2", 0.0, counting=False),
        ]
    )
    # 0 leads on question 0 and 2 on question 1; 1 leads on a question that does not count.
    assert leading(table).tolist() == [True, False, True] * 3
    found = with_estimates(table)["direct_estimate"]
    np.testing.assert_allclose(found[:6], [-7.0, -0.5, -0.5, -0.2, -0.1, -0.1])
    assert found[6:].tolist() == [0.0, -4.5, 0.0]
    other = table.assign(video_id="b", direct_delta_margin=NAN, item=table["item"].str.replace("a", "b"))
    both = with_estimates(pd.concat([table, other], ignore_index=True))["direct_estimate"]
    assert both[:9].notna().all()
    assert both[9:].isna().all()


def test_the_order_of_rows_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "LEADERS", 2)
    table = pd.DataFrame([row(latent, "0", 1.0) for latent in (5, 3, 4, 1)])
    assert set(table["latent"][leading(table)]) == {1, 3}
    assert set(table["latent"][leading(table.iloc[::-1])]) == {1, 3}


def test_a_model_without_direct_effects_has_no_such_estimates() -> None:
    table = pd.DataFrame([row(0, "0", 3.0), row(1, "0", 1.0)])
    assert with_estimates(table)["direct_estimate"].isna().all()
