"""Sets and pairs: what the toy needs is found, and a planted stand-in is told from independent latents."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from steer.mechanism.matched import Bench, Shifts
from steer.mechanism.sets import candidates, pair_rows, set_rows
from steer.tables import LATENT_SUBJECTS
from tests.steer.effect_rows import row
from tests.steer.mechanism.toy_bench import bench_of
from tests.steer.toy import SUBJECT

EVIDENCE = {"a": (0.0, 1.0, 0.0, 2.0), "b": (1.0, 0.0, 0.0, 1.0), "c": (0.0, 0.0, 3.0, 0.0)}
NOISE = {name: torch.ones(4, 4) for name in EVIDENCE}
COUNTS = {"a": 3, "b": 3, "c": 3}


def by_latent(effects: dict[int, float]) -> pd.DataFrame:
    rows = [
        row(LATENT_SUBJECTS, latent=latent, scope="subject", name=SUBJECT, method="exact", delta_margin=effect)
        for latent, effect in effects.items()
    ]
    return pd.DataFrame(rows, columns=LATENT_SUBJECTS.names)


def test_candidates_are_those_that_cost_most_and_no_others() -> None:
    table = by_latent({1: -0.1, 2: -0.5, 3: 0.9, 4: -0.2})
    assert candidates(table, SUBJECT) == [2, 4, 1]
    screened = table.assign(delta_margin=[None, -0.5, 0.9, -0.2], attribution=[-0.3, 0.0, 0.0, 0.0])
    assert candidates(screened, SUBJECT) == [2, 1, 4]
    assert candidates(table, "another") == []


def test_the_latent_that_the_answer_reads_destroys_and_restores_alone() -> None:
    bench = bench_of(EVIDENCE, COUNTS, noise=NOISE)
    rows = set_rows(bench, bench, SUBJECT, by_latent({0: -1.0, 5: -0.01}))
    found = {(each["aim"], each["size"]): each for each in rows}
    for aim in ("destroy", "restore"):
        assert found[aim, 1]["latents"] == [0]
        assert found[aim, 1]["share"] == pytest.approx(1.0, abs=1e-5)
        assert found[aim, 1]["train_share"] == pytest.approx(1.0, abs=1e-5)
        assert found[aim, 2]["latents"] == [0, 5]


class EitherOr(Bench):
    """A bench in which latents 4 and 5 stand in for each other, and latent 6 adds to them."""

    def shifts(self, case: Any, edits: Iterable[torch.Tensor], tokens: Any = None) -> Shifts:  # noqa: ARG002
        margins = []
        for change in edits:
            left = [float((case.sequences.visual + change)[:, dimension].sum() > 0) for dimension in (4, 5, 6)]
            margins.append(max(left[0], left[1]) + left[2] - 2.0)
        values = np.array(margins)
        return Shifts(margin=values, count=values, answer=values, by_one=values)


def test_a_pair_that_stands_in_for_each_other_exceeds_its_sum_and_no_other_does() -> None:
    own = bench_of(EVIDENCE, COUNTS, noise=NOISE)
    bench = EitherOr(editor=own.editor, cases=own.cases, items=own.items, seed=0)
    rows = pair_rows(bench, bench, SUBJECT, by_latent({4: -0.1, 5: -0.1, 6: -1.0}))
    found = {(each["one"], each["other"]): each for each in rows}
    assert (found[4, 5]["joint"], found[4, 5]["sum"], found[4, 5]["excess"]) == (-1.0, 0.0, -1.0)
    assert (found[4, 6]["joint"], found[4, 6]["sum"], found[4, 6]["excess"]) == (-1.0, -1.0, 0.0)
    assert [pair for pair, each in found.items() if each["stand_in"]] == [(4, 5)]
    assert rows[0]["train_excess"] == -1.0  # the strongest comes first


def test_sets_of_stand_ins_take_both_to_destroy_and_one_to_restore() -> None:
    own = bench_of(EVIDENCE, COUNTS, noise=NOISE)
    bench = EitherOr(editor=own.editor, cases=own.cases, items=own.items, seed=0)
    rows = set_rows(bench, bench, SUBJECT, by_latent({4: -0.1, 5: -0.1, 6: -1.0}))
    shares = {(each["aim"], each["size"]): each["share"] for each in rows}
    assert [shares["destroy", size] for size in (1, 2, 3)] == [0.5, 0.5, 1.0]
    assert [shares["restore", size] for size in (1, 2, 3)] == [0.5, 1.0, 1.0]
