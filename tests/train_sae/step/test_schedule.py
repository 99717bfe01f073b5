"""The learning rate."""

import pytest

from train_sae.step.schedule import learning_rate


def test_rises_holds_and_falls() -> None:
    # 100 steps: 5 of warm-up, 20 of decay.
    rates = [learning_rate(step, 100, peak=2.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.4)
    assert rates[4] == pytest.approx(2.0)
    assert rates[5:81] == pytest.approx([2.0] * 76)
    assert rates[90] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.1)


def test_warm_up_takes_at_most_a_thousand_steps() -> None:
    assert learning_rate(999, 10**6, peak=1.0) == 1.0
    assert learning_rate(499, 10**6, peak=1.0) == 0.5


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_every_step_of_a_short_training_has_a_positive_rate(n_steps: int) -> None:
    assert all(0 < learning_rate(step, n_steps, peak=1.0) <= 1 for step in range(n_steps))
