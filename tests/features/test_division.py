from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.division import ALONE, Division, blocks_of

COSTS = st.lists(st.integers(0, 50), max_size=30).map(lambda costs: np.array(costs, dtype=np.int64))


@given(st.integers(0, 40), st.integers(1, 6))
def test_shares_follow_each_other_and_are_about_equal(n_items: int, n: int) -> None:
    shares = [Division(place, n).share(n_items) for place in range(n)]
    assert [item for share in shares for item in share] == list(range(n_items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(COSTS, st.integers(1, 6))
def test_shares_by_cost_hold_every_item_once(costs: np.ndarray, n: int) -> None:
    shares = [Division(place, n).share_by_cost(costs) for place in range(n)]
    assert [item for share in shares for item in share] == list(range(len(costs)))
    for share in shares:
        assert costs[share.start : share.stop].sum() <= costs.sum() / n + costs.max(initial=0)


@given(COSTS, st.integers(1, 100))
def test_blocks_hold_every_item_once_and_no_more_than_they_may(costs: np.ndarray, most: int) -> None:
    blocks = list(blocks_of(costs, most))
    assert [item for block in blocks for item in block] == list(range(len(costs)))
    assert all(len(block) == 1 or costs[block.start : block.stop].sum() <= most for block in blocks)


def test_alone_everything_is_ones_own() -> None:
    assert ALONE.share(5) == range(5)
    assert ALONE.agree(lambda: 3) == 3
    own = np.arange(3.0)
    assert ALONE.join(own) is own
    assert ALONE.join_json([1]) == [1]


def test_an_error_of_the_first_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        ALONE.agree(lambda: 1 // 0)
