"""Masks cover all latents evenly, and the regression finds planted effects."""

import numpy as np
import pytest

from steer.screens.masked import draw_masks, effects_of_masks


@pytest.mark.parametrize(
    ("n", "n_masks", "share"), [(50, 100, 0.02), (57, 40, 0.1), (7, 10, 0.02), (3, 9, 0.5), (1, 2, 0.02)]
)
def test_masks_have_one_size_and_every_latent_is_in_equally_many(n: int, n_masks: int, share: float) -> None:
    masks = draw_masks(n, n_masks, share, np.random.default_rng(0))
    size = max(1, round(share * n))
    assert (masks.sum(axis=1) == size).all()
    counts = masks.sum(axis=0)
    assert counts.sum() == n_masks * size
    assert counts.max() - counts.min() <= 1
    assert (masks == draw_masks(n, n_masks, share, np.random.default_rng(0))).all()
    if 1 < size < n:
        assert len({tuple(row) for row in masks}) > 1


def test_planted_effects_are_found_among_many_that_do_nothing() -> None:
    generator = np.random.default_rng(0)
    n = 600
    effects = np.zeros((2, n))
    effects[0, [3, 100, 599]] = [-5.0, 1.0, -0.5]
    masks = draw_masks(n, 400, 0.02, generator)
    changes = masks @ effects.T + 0.01 * generator.standard_normal((400, 2)) * np.array([1.0, 0.0])
    found = effects_of_masks(masks, changes, seed=0)
    assert sorted(np.argsort(-np.abs(found[0]))[:3]) == [3, 100, 599]
    np.testing.assert_allclose(found[0, [3, 100, 599]], [-5.0, 1.0, -0.5], atol=0.1)
    assert np.abs(np.delete(found[0], [3, 100, 599])).max() < 0.02
    assert (found[1] == 0).all()  # the second item moves by nothing
    assert (effects_of_masks(masks, changes, seed=0) == found).all()
