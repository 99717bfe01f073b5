"""The order of the tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from train_sae.loader import RowRange, TokenLoader, n_rows, split_by_video

SITE = "resid/1"


class RowNumbers:
    """A store of which each row holds its own number, and which remembers what was read."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.reads: list[RowRange] = []

    def read(self, site: str, start: int, stop: int) -> Tensor:
        assert site == SITE
        self.reads.append(RowRange(start, stop))
        return torch.arange(start, stop).to(self.dtype).unsqueeze(1).repeat(1, 2)


@dataclass(frozen=True)
class Video:
    video_id: str
    row_start: int
    row_stop: int


def make_loader(
    ranges: Sequence[RowRange], batch_size: int = 50, seed: int = 0, pool_rows: int = 300, resident: bool = True
) -> TokenLoader:
    return TokenLoader(
        RowNumbers(),
        SITE,
        ranges,
        batch_size=batch_size,
        seed=seed,
        pool_rows=pool_rows,
        resident_bytes=2**30 if resident else 0,
    )


RANGES = (RowRange(0, 130), RowRange(130, 700), RowRange(900, 1001), RowRange(1500, 1501))
ROWS = sorted([*range(700), *range(900, 1001), 1500])


def rows_of(batches: Sequence[Tensor]) -> list[int]:
    return [int(row) for batch in batches for row in batch[:, 0]]


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("batch_size", [1, 50, 401, 802, 5000])
def test_every_epoch_holds_every_row_once(resident: bool, batch_size: int) -> None:
    loader = make_loader(RANGES, batch_size, resident=resident)
    assert loader.n_tokens == len(ROWS) == n_rows(RANGES)
    n_steps = -(-2 * len(ROWS) // batch_size)
    sequence = rows_of(list(loader.batches(0, n_steps)))
    assert sorted(sequence[: len(ROWS)]) == ROWS
    assert sorted(sequence[len(ROWS) : 2 * len(ROWS)]) == ROWS
    assert sequence[: len(ROWS)] != sequence[len(ROWS) : 2 * len(ROWS)]


def test_a_batch_is_a_function_of_its_step() -> None:
    expected = [batch.clone() for batch in make_loader(RANGES).batches(0, 40)]
    for step in (39, 0, 17, 16):
        assert torch.equal(make_loader(RANGES, resident=False).batch(step), expected[step])
    resumed = list(make_loader(RANGES, resident=False).batches(23, 40))
    assert all(torch.equal(a, b) for a, b in zip(resumed, expected[23:], strict=True))


def test_memory_decides_how_rows_are_read_and_not_which() -> None:
    kept, streamed = make_loader(RANGES), make_loader(RANGES, resident=False)
    assert rows_of(list(kept.batches(0, 60))) == rows_of(list(streamed.batches(0, 60)))


def test_other_seeds_and_epochs_give_other_orders() -> None:
    first, second = make_loader(RANGES, batch_size=802), make_loader(RANGES, batch_size=802, seed=1)
    orders = [tuple(rows_of([loader.batch(step)])) for loader in (first, second) for step in (0, 1)]
    assert len(set(orders)) == 4


def test_rows_outside_the_ranges_are_never_read() -> None:
    source = RowNumbers()
    loader = TokenLoader(source, SITE, RANGES, batch_size=50, seed=0, pool_rows=300, resident_bytes=0)
    list(loader.batches(0, 40))
    allowed = set(ROWS)
    assert source.reads
    assert all(set(range(*read)) <= allowed for read in source.reads)


def test_resident_rows_are_read_once() -> None:
    source = RowNumbers()
    loader = TokenLoader(source, SITE, RANGES, batch_size=50, seed=0)
    list(loader.batches(0, 100))
    # One row tells the width; the two adjacent ranges are read as one.
    assert source.reads == [RowRange(0, 1), RowRange(0, 700), RowRange(900, 1001), RowRange(1500, 1501)]


def test_batches_mix_videos() -> None:
    videos = [RowRange(512 * i, 512 * (i + 1)) for i in range(100)]
    batch = make_loader(videos, batch_size=256, pool_rows=2**14).batch(0)
    found = np.unique(batch[:, 0].numpy() // 512).size
    # 256 draws from 100 videos: 100 · (1 − 0.99²⁵⁶) ≈ 92 different ones if they were independent.
    assert found > 80


@pytest.mark.parametrize(("limit", "expected"), [(120, 120), (802, 802), (10**6, 802)])
def test_sample_repeats_no_row_and_keeps_to_the_limit(limit: int, expected: int) -> None:
    rows = rows_of(list(make_loader(RANGES).sample(limit)))
    assert len(rows) == len(set(rows)) == expected


def test_batches_keep_the_precision_of_the_store() -> None:
    loader = TokenLoader(RowNumbers(torch.bfloat16), SITE, RANGES, batch_size=4, seed=0)
    assert loader.batch(0).dtype == torch.bfloat16


def test_split_puts_whole_videos_on_one_side() -> None:
    videos = [Video("a", 0, 10), Video("b", 10, 15), Video("c", 15, 40)]
    split = split_by_video(videos, frozenset({"b", "absent"}))
    assert split.train == (RowRange(0, 10), RowRange(15, 40))
    assert split.held_out == (RowRange(10, 15),)


def test_an_error_while_reading_ahead_reaches_the_caller() -> None:
    class Failing(RowNumbers):
        def read(self, site: str, start: int, stop: int) -> Tensor:
            if len(self.reads) > 6:
                raise OSError("disk gone")
            return super().read(site, start, stop)

    loader = TokenLoader(Failing(), SITE, RANGES, batch_size=50, seed=0, pool_rows=100, resident_bytes=0)
    with pytest.raises(OSError, match="disk gone"):
        list(loader.batches(0, 40))
