from __future__ import annotations

import pandas as pd
import pytest

from features.media import MAX_PANELS, choose_latents, shown_steps


def test_labelled_latents_are_drawn_first_and_dead_ones_never() -> None:
    catalogue = pd.DataFrame(
        {
            "latent": range(5),
            "is_dead": [False, False, False, True, False],
            "labelled": [False, True, True, False, False],
            "top_auroc": [0.99, 0.7, 0.9, None, None],
        }
    )
    assert choose_latents(catalogue, 10) == [2, 1, 0, 4]
    assert choose_latents(catalogue, 2) == [2, 1]
    assert choose_latents(catalogue, 0) == []


@pytest.mark.parametrize(("n_t", "peak"), [(1, 0), (4, 3), (8, 0), (32, 0), (32, 17), (32, 31)])
def test_strips_show_a_few_steps_in_order_with_the_exemplars(n_t: int, peak: int) -> None:
    steps = shown_steps(n_t, peak).tolist()
    assert peak in steps
    assert steps == sorted(set(steps))
    assert len(steps) == min(n_t, MAX_PANELS)
