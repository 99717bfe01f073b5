"""The order of rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train_sae.batches.order import UNIT_ROWS, TokenOrder
from train_sae.batches.token_set import RowRange, TokenSet


def token_set(lengths: list[tuple[int, int]], every: int) -> TokenSet:
    """Ranges given by (gap before it, rows); of the rows only every so-manieth, and the first of each range."""
    ranges, row = list[RowRange](), 0
    for gap, length in lengths:
        ranges.append(RowRange(row + gap, row + gap + length))
        row += gap + length
    kept = np.arange(row) % every == 0
    kept[[rows.start for rows in ranges]] = True
    return TokenSet(tuple(ranges), kept if every > 1 else None)


def expected_rows(tokens: TokenSet) -> list[int]:
    rows = np.concatenate([np.arange(*span) for span in tokens.ranges])
    return (rows if tokens.kept is None else rows[tokens.kept[rows]]).tolist()


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 70), st.integers(1, 200)), min_size=1, max_size=6),
    every=st.integers(1, 80),
    n_lanes=st.integers(1, 4),
    pool_rows=st.integers(1, 300),
    epoch=st.integers(0, 3),
)
def test_the_pools_of_all_lanes_partition_the_set(
    lengths: list[tuple[int, int]], every: int, n_lanes: int, pool_rows: int, epoch: int
) -> None:
    tokens = token_set(lengths, every)
    wanted = expected_rows(tokens)
    if len(wanted) < n_lanes:
        return
    token_order = TokenOrder(tokens, seed=3, pool_rows=pool_rows, n_lanes=n_lanes)
    assert token_order.n_tokens == tokens.n_tokens == len(wanted)
    found: list[int] = []
    for lane in range(n_lanes):
        position, start = 0, epoch * token_order.n_lane_tokens
        while position < token_order.n_lane_tokens:
            cursor = token_order.cursor(start + position, lane)
            assert (cursor.epoch, cursor.position) == (epoch, 0)
            pool = token_order.pool(epoch, cursor.pool, lane)
            assert pool.start == position
            assert 0 < len(pool.rows) <= token_order.capacity <= pool_rows + UNIT_ROWS
            assert np.all(np.diff(pool.rows) > 0)
            assert sorted(pool.places.tolist()) == list(range(len(pool.rows)))
            assert np.array_equal(pool.in_order()[pool.places], pool.rows)
            found += pool.rows.tolist()
            position += len(pool.rows)
        assert position == token_order.n_lane_tokens
    assert len(set(found)) == len(found) == len(wanted) - len(wanted) % n_lanes
    assert set(found) <= set(wanted)


def test_rows_that_unequal_lanes_leave_out_change_from_epoch_to_epoch() -> None:
    # 642 = 4 · 160 + 2 rows: each epoch leaves out two.
    token_order = TokenOrder(TokenSet((RowRange(0, 642),)), seed=0, pool_rows=100, n_lanes=4)
    left_out: list[set[int]] = []
    for epoch in range(6):
        used = set[int]()
        for lane in range(4):
            position = 0
            while position < token_order.n_lane_tokens:
                pool = token_order.cursor(epoch * token_order.n_lane_tokens + position, lane).pool
                rows = token_order.pool(epoch, pool, lane).rows
                used |= set(rows.tolist())
                position += len(rows)
        left_out.append(set(range(642)) - used)
    assert [len(rows) for rows in left_out] == [2] * 6
    assert not set.intersection(*left_out)


@pytest.mark.parametrize(("pool_rows", "sizes"), [(1000, [640]), (500, [320, 320]), (250, [256, 192, 192])])
def test_pools_of_an_epoch_are_about_equal(pool_rows: int, sizes: list[int]) -> None:
    # Ten units of 64 rows; three pools of 640 / 3 = 213 rows are cut at whole units: before rows 256 and 448.
    token_order = TokenOrder(TokenSet((RowRange(0, 640),)), seed=0, pool_rows=pool_rows)
    assert [len(token_order.pool(0, pool).rows) for pool in range(len(sizes))] == sizes
