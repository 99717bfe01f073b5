"""Means, intervals and tests of a subject's questions against the others, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from ask.inference import sign_flip_p
from steer.evidence.contrasts import Contrasts, VideoMeans, detectable, groups_of, interval, power_factor
from tests.steer.toy import SUBJECT, counting_item, noncounting_item

CUPS = "How many cups are there?"
ITEMS = [
    counting_item("a", 0),
    counting_item("a", 1),
    replace(counting_item("a", 2), question=CUPS),
    counting_item("b", 0),
    replace(counting_item("c", 0), question=CUPS),
    noncounting_item("a"),
]


def test_groups_are_subjects_and_texts() -> None:
    subjects = groups_of(ITEMS, ("subject",))
    assert [(group.scope, group.name) for group in subjects] == [("subject", "cup"), ("subject", SUBJECT)]
    cup, own = subjects
    assert cup.matched.tolist() == [False, False, True, False, True, False]
    assert own.matched.tolist() == cup.other.tolist() == [True, True, False, True, False, False]
    assert own.noncounting.tolist() == [False] * 5 + [True]
    assert [group.name for group in groups_of(ITEMS, ("task",))] == [CUPS, "How many?"]


def test_questions_are_averaged_by_video_and_set_against_the_others() -> None:
    contrasts = Contrasts(ITEMS, seed=0)
    own = groups_of(ITEMS, ("subject",))[1]
    margin = np.array([[-1.0], [-3.0], [0.5], [-4.0], [0.1], [0.2]])
    found = contrasts.columns(own, margin, margin / 10)
    # a: (-1 - 3) / 2 = -2; b: -4. Others: a 0.5, c 0.1. Non-counting questions: a 0.2
    assert found["delta_margin"] == pytest.approx([-3.0])
    assert found["delta_margin_other"] == pytest.approx([0.3])
    assert found["delta_margin_noncounting"] == pytest.approx([0.2])
    assert found["delta_expected_count"] == pytest.approx([-0.3])
    assert found["contrast"] == pytest.approx([-3.3])
    assert found["p_value"] == [2 / 4]  # signs of -2 and -4: only -- and ++ reach 6
    assert np.isnan(found["detectable"]).all()  # two videos cannot reach 5 %
    assert found["delta_margin_low"] == [-4.0]
    assert found["delta_margin_high"] == [-2.0]


def test_many_edits_are_tested_as_one() -> None:
    items = [counting_item(f"v{number:02d}") for number in range(20)]
    values = np.random.default_rng(0).normal(0.5, 1.0, size=(20, 3))
    values[4:, 1] = 0.0
    contrasts = Contrasts(items, seed=0)
    means = contrasts.means(values, np.ones(20, dtype=bool))
    expected = [sign_flip_p(values[:, edit], np.random.default_rng(1)) for edit in range(3)]
    assert contrasts.sign_flip_p(means) == pytest.approx(expected, abs=0.01)
    alone = contrasts.columns(groups_of(items, ("subject",))[0], values[:, :1], values[:, :1])
    together = contrasts.columns(groups_of(items, ("subject",))[0], values, values)
    for name, column in alone.items():
        np.testing.assert_allclose(column[0], together[name][0], rtol=1e-12, err_msg=name)


def test_the_interval_covers_the_mean_in_nineteen_of_twenty_samples() -> None:
    rng = np.random.default_rng(0)
    items = [counting_item(f"v{number:02d}") for number in range(40)]
    values = rng.normal(1.0, 2.0, size=(40, 400))
    contrasts = Contrasts(items, seed=0)
    low, high = interval(contrasts.draws(contrasts.means(values, np.ones(40, dtype=bool))))
    assert 0.91 < np.mean((low <= 1.0) & (high >= 1.0)) < 0.98


def test_where_nothing_is_asked_nothing_is_known() -> None:
    contrasts = Contrasts(ITEMS, seed=0)
    none = contrasts.means(np.ones((6, 2)), np.zeros(6, dtype=bool))
    assert np.isnan(none.mean()).all()
    assert np.isnan(contrasts.sign_flip_p(none)).all()
    assert np.isnan(detectable(none)).all()
    assert all(np.isnan(end).all() for end in interval(contrasts.draws(none)))


def test_one_video_has_no_interval() -> None:
    found = Contrasts(ITEMS, seed=0).columns(groups_of(ITEMS, ("subject",))[1], np.ones((6, 1)), np.ones((6, 1)))
    assert found["delta_margin_noncounting"] == [1.0]  # of video a alone
    assert np.isnan([found["delta_margin_noncounting_low"], found["delta_margin_noncounting_high"]]).all()
    assert not np.isnan([found["delta_margin_low"], found["delta_margin_other_low"], found["contrast_low"]]).any()


def effects(values: np.ndarray) -> tuple[Contrasts, VideoMeans]:
    """Means of one question per video: [video, edit]."""
    contrasts = Contrasts([counting_item(f"v{number:03d}") for number in range(len(values))], seed=0)
    return contrasts, contrasts.means(values, np.ones(len(values), dtype=bool))


def test_what_is_detectable_is_a_mean_over_all_videos_of_what_those_with_an_effect_show() -> None:
    own = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    values = np.zeros((10, 3))
    values[:8, 0] = own
    values[:5, 1] = 1.0  # too few for the test
    expected = 8 / 10 * (2.8 + 3.1 / (8 - 2.4)) * np.std(own, ddof=1) / np.sqrt(8)
    np.testing.assert_allclose(detectable(effects(values)[1]), [expected, np.nan, 0.0])
    assert np.isnan(detectable(effects(np.zeros((5, 1)))[1])).all()


@pytest.mark.parametrize(("n", "n_silent"), [(6, 0), (7, 0), (8, 0), (10, 0), (14, 0), (20, 0), (40, 0), (8, 12)])
def test_the_test_finds_what_is_detectable_in_four_of_five_samples(n: int, n_silent: int) -> None:
    drawn = np.random.default_rng(n).normal(power_factor(n) / np.sqrt(n), 1.0, size=(n, 1500))
    contrasts, means = effects(np.concatenate([drawn, np.zeros((n_silent, 1500))]))
    assert np.mean(contrasts.sign_flip_p(means) < 0.05) == pytest.approx(0.8, abs=0.035)
    # 0.035 is 3.4 standard errors of 1500 samples. What 2.8 standard errors promise falls short with few videos:
    if n <= 14 and not n_silent:
        fewer = drawn + (2.8 - power_factor(n)) / np.sqrt(n)
        assert np.mean(contrasts.sign_flip_p(effects(fewer)[1]) < 0.05) < 0.78
