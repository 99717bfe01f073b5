"""Inference over videos, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from ask.inference import (
    bootstrap_interval,
    control_p_value,
    control_percentile,
    pooled_interval,
    sign_flip_p,
    video_means,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_values_of_one_video_are_averaged_first() -> None:
    # b: (1 + 3) / 2, a: 5; ordered by id
    assert video_means([1.0, 5.0, 3.0], ["b", "a", "b"]).tolist() == [5.0, 2.0]
    assert video_means([], []).tolist() == []


def test_sign_flip_p_enumerates_few_videos() -> None:
    # |sum| = 6 of (1, 2, 3); of the 8 sign patterns only +++ and --- reach it.
    assert sign_flip_p(np.array([1.0, 2.0, 3.0]), rng()) == 2 / 8
    # |sum| = 2 of (-1, 3): the sums are +-2 and +-4, and all reach it.
    assert sign_flip_p(np.array([-1.0, 3.0]), rng()) == 1.0


def test_videos_without_an_effect_do_not_change_p() -> None:
    assert sign_flip_p(np.array([1.0, 0.0, 2.0, 3.0, 0.0]), rng()) == 2 / 8
    assert sign_flip_p(np.zeros(5), rng()) == 1.0


def test_sign_flip_p_with_many_videos_draws_and_never_reaches_zero() -> None:
    assert sign_flip_p(np.ones(30), rng(), n_draws=99) == 1 / 100


def test_sign_flip_p_is_uniform_enough_under_the_null() -> None:
    generator = rng()
    p_values = [sign_flip_p(generator.normal(size=10), generator) for _ in range(400)]
    # 5 % of 400 is 20, with a standard deviation of 4.4.
    assert 7 <= sum(p <= 0.05 for p in p_values) <= 34


def test_bootstrap_interval_of_a_constant_is_a_point_and_of_nothing_unknown() -> None:
    assert bootstrap_interval(np.full(5, 2.0), rng()) == (2.0, 2.0)
    assert all(math.isnan(end) for end in bootstrap_interval(np.zeros(0), rng()))


def test_bootstrap_interval_has_the_width_of_the_standard_error() -> None:
    means = rng().normal(size=400)
    low, high = bootstrap_interval(means, rng())
    # 2 x 1.96 standard errors of 1/20
    assert high - low == pytest.approx(0.196, rel=0.15)
    assert low < means.mean() < high


def test_controls() -> None:
    controls = np.array([0.1, -0.3, 0.2])
    assert control_p_value(-0.2, controls) == (1 + 2) / (3 + 1)
    assert control_p_value(1.0, controls) == 1 / 4
    assert control_percentile(controls, 0.5) == pytest.approx(0.2)
    assert math.isnan(control_p_value(1.0, np.zeros(0)))
    assert math.isnan(control_percentile(np.zeros(0)))


def test_the_interval_of_a_mean_over_questions_holds_that_mean_however_unequal_videos_are() -> None:
    """Twelve wrong answers about one video and a right one about each of nine: 0.43 over questions, 0.9 over videos."""
    videos = ["a"] * 12 + [f"b{i}" for i in range(9)]
    values = [0.0] * 12 + [1.0] * 9
    low, high = pooled_interval(values, videos, rng())
    assert low < 9 / 21 < high
    # With one question a video it is the interval of the mean over videos.
    assert pooled_interval([0.0, 1.0, 3.0], ["a", "b", "c"], rng()) == pytest.approx(
        bootstrap_interval(np.array([0.0, 1.0, 3.0]), rng())
    )
    # The same as drawing videos one by one.
    generator, expected = rng(), list[float]()
    names = sorted(set(videos))
    for draw in generator.integers(0, len(names), size=(2000, len(names))):
        drawn = [value for place in draw for value, video in zip(values, videos, strict=True) if video == names[place]]
        expected.append(float(np.mean(drawn)))
    assert (low, high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])))


def test_one_video_has_no_interval() -> None:
    assert all(math.isnan(end) for end in pooled_interval([1.0, 0.0], ["a", "a"], rng()))
    assert all(math.isnan(end) for end in pooled_interval([], [], rng()))
