"""What a step does."""

import numpy as np

from train_sae.options import SaeOptions
from train_sae.step.settings import StepSettings


def sampled(seed: int, n: int = 3) -> StepSettings:
    options = SaeOptions(matryoshka_samples=n)
    return StepSettings(arch="matryoshka_batchtopk", k=1, dead_tokens=1, aux_k=1, seed=seed, options=options)


def test_only_matryoshka_has_prefixes() -> None:
    assert StepSettings(arch="batchtopk", k=1, dead_tokens=1, aux_k=1).widths(64, 0) == (64,)
    assert StepSettings(arch="matryoshka_batchtopk", k=1, dead_tokens=1, aux_k=1).widths(64, 5) == (8, 16, 32, 64)


def test_sampled_widths_rise_end_with_the_dictionary_and_depend_on_seed_and_step() -> None:
    drawn = [sampled(0).widths(1000, step) for step in range(50)]
    for widths in drawn:
        assert list(widths) == sorted(set(widths))
        assert widths[0] >= 1
        assert widths[-1] == 1000
        assert 1 <= len(widths) <= 4
    assert drawn == [sampled(0).widths(1000, step) for step in range(50)]
    assert drawn != [sampled(1).widths(1000, step) for step in range(50)]


def test_sampled_widths_follow_their_law() -> None:
    # P(width ≤ w) = (1 − w^−½) / (1 − m^−½). Widths are rounded down, so P(width ≤ 3) = P(w < 4) = 0.5 / 0.99 = 0.505.
    widths = [width for step in range(500) for width in sampled(3, 1).widths(10_000, step)[:-1]]
    assert abs(np.mean(np.array(widths) <= 3) - 0.505) < 0.07
