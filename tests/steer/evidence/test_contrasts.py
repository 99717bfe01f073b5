"""Means, intervals and tests of a subject's questions against the others, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from ask.inference import sign_flip_p
from steer.evidence.contrasts import Contrasts, detectable, groups_of, interval
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
    assert found["detectable"] == pytest.approx([2.8 * np.std([-2, -4], ddof=1) / np.sqrt(2)])
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
