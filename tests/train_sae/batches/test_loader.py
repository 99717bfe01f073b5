"""Batches of rows."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train_sae.rows import RowNumbers
from train_sae.batches.loader import TokenLoader
from train_sae.batches.token_set import RowRange, TokenSet

RANGES = (RowRange(0, 130), RowRange(130, 700), RowRange(900, 1001), RowRange(1500, 1501))
ROWS = sorted([*range(700), *range(900, 1001), 1500])


def make_loader(ranges: Sequence[RowRange] = RANGES, batch_size: int = 50, **changes: Any) -> TokenLoader:
    settings: dict[str, Any] = {"seed": 0, "pool_rows": 300, **changes}
    return TokenLoader(RowNumbers(), TokenSet(tuple(ranges)), batch_size=batch_size, **settings)


def rows_of(batches: Iterable[Tensor]) -> list[int]:
    return [int(row) for batch in batches for row in batch[:, 0]]


@pytest.mark.parametrize("pool_rows", [100, 300, 10**6])
@pytest.mark.parametrize("batch_size", [1, 50, 401, 802, 5000])
def test_every_epoch_holds_every_row_once(pool_rows: int, batch_size: int) -> None:
    loader = make_loader(batch_size=batch_size, pool_rows=pool_rows)
    assert loader.n_tokens == len(ROWS)
    sequence = rows_of(loader.batches(0, -(-2 * len(ROWS) // batch_size)))
    assert sorted(sequence[: len(ROWS)]) == ROWS
    assert sorted(sequence[len(ROWS) : 2 * len(ROWS)]) == ROWS
    assert sequence[: len(ROWS)] != sequence[len(ROWS) : 2 * len(ROWS)]


def test_a_batch_is_a_function_of_its_step() -> None:
    expected = [batch.clone() for batch in make_loader().batches(0, 40)]
    for step in (39, 0, 17, 16):
        assert torch.equal(make_loader().batch(step), expected[step])
    resumed = [batch.clone() for batch in make_loader().batches(23, 40)]
    assert all(torch.equal(a, b) for a, b in zip(resumed, expected[23:], strict=True))


def test_one_loader_can_go_back_and_stop_anywhere() -> None:
    loader = make_loader()
    expected = [batch.clone() for batch in make_loader().batches(0, 40)]
    for start, stop in ((0, 7), (30, 40), (3, 9), (0, 1)):
        batches = loader.batches(start, 40)
        for step in range(start, stop):
            assert torch.equal(next(batches), expected[step])
        batches.close()  # type: ignore[attr-defined]


def test_a_batch_stays_as_it_is_until_the_next_one_is_asked_for() -> None:
    # While the consumer works on a batch, the next pool is read into the other buffer.
    for batch in make_loader(pool_rows=60, batch_size=70).batches(0, 60):
        before = batch.clone()
        for _ in range(20):
            assert torch.equal(batch, before)


def test_rows_names_the_rows_of_a_batch_without_reading() -> None:
    loader = make_loader(n_lanes=2)
    named = [loader.rows(step).tolist() for step in range(40)]
    assert named == [rows_of([batch]) for batch in make_loader(n_lanes=2).batches(0, 40)]
    cursor = loader.cursor(20)
    # Lanes of 802 / 2 = 401 rows and 25 rows a batch: step 20 begins at row 500 of the lane, 99 rows into epoch 1.
    assert (cursor.epoch, cursor.pool, cursor.position) == (1, 0, 99)


def test_lanes_together_are_the_batch_of_one_process() -> None:
    whole = [batch.clone() for batch in make_loader(n_lanes=2).batches(0, 30)]
    lanes = [[batch.clone() for batch in make_loader(n_lanes=2, lanes=[lane]).batches(0, 30)] for lane in (0, 1)]
    for both, first, second in zip(whole, *lanes, strict=True):
        assert torch.equal(both, torch.cat([first, second]))


def test_other_seeds_and_epochs_give_other_orders() -> None:
    first, second = make_loader(batch_size=802), make_loader(batch_size=802, seed=1)
    orders = [tuple(rows_of([loader.batch(step)])) for loader in (first, second) for step in (0, 1)]
    assert len(set(orders)) == 4


def test_rows_outside_the_set_are_never_read() -> None:
    reader = RowNumbers()
    kept = np.arange(1501) % 3 == 0
    loader = TokenLoader(reader, TokenSet(RANGES, kept), batch_size=50, seed=0, pool_rows=100)
    seen = rows_of(loader.batches(0, 12))
    allowed = [row for row in ROWS if row % 3 == 0]
    assert loader.n_tokens == len(allowed)
    assert sorted(seen[: len(allowed)]) == allowed
    assert set(np.concatenate(reader.reads).tolist()) <= set(allowed)


def test_batches_mix_videos() -> None:
    videos = [RowRange(512 * i, 512 * (i + 1)) for i in range(100)]
    batch = make_loader(videos, batch_size=256, pool_rows=2**14).batch(0)
    found = np.unique(batch[:, 0].numpy() // 512).size
    # Four pools of 200 units, in which 100 · (1 − ¾⁸) ≈ 90 videos have a unit at all; 256 draws from 200 units leave
    # out a quarter of them. Without shuffling a batch holds one video.
    assert found > 65


@pytest.mark.parametrize(("limit", "expected"), [(120, 120), (802, 802), (10**6, 802)])
def test_sample_repeats_no_row_and_keeps_to_the_limit(limit: int, expected: int) -> None:
    rows = rows_of(make_loader().sample(limit))
    assert len(rows) == len(set(rows)) == expected


def test_batches_keep_the_precision_of_the_store() -> None:
    loader = TokenLoader(RowNumbers(torch.bfloat16), TokenSet(RANGES), batch_size=4, seed=0)
    assert loader.batch(0).dtype == torch.bfloat16


def test_an_error_while_reading_ahead_reaches_the_caller() -> None:
    class Failing(RowNumbers):
        def read(self, rows: np.ndarray, places: np.ndarray, out: Tensor) -> None:
            if len(self.reads) > 3:
                raise OSError("disk gone")
            super().read(rows, places, out)

    loader = TokenLoader(Failing(), TokenSet(RANGES), batch_size=50, seed=0, pool_rows=100)
    with pytest.raises(OSError, match="disk gone"):
        list(loader.batches(0, 40))


@pytest.mark.parametrize("resident", [False, True])
def test_a_pool_is_read_over_only_when_the_gpu_that_takes_the_batches_has_its_copies(
    monkeypatch: pytest.MonkeyPatch, resident: bool
) -> None:
    """A GPU that is not the current one, as `--device cuda:1` names it, stood in for by what it would be asked."""
    asked: list[torch.device] = []
    waited: list[str] = []

    event = torch.cuda.Event

    class Event:
        __class__ = event  # what runtime checks of types ask

        def record(self, stream: "Stream") -> None:
            asked.append(stream.device)

        def synchronize(self) -> None:
            waited.append("host")

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def wait_event(self, _: Event) -> None:
            waited.append("stream")

        def synchronize(self) -> None:
            pass

    class Reader(RowNumbers):
        def read(self, *arguments: Any) -> None:
            waited.append("read")
            super().read(*arguments)

    empty, empty_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: empty(shape, dtype=dtype))  # noqa: ARG005
    monkeypatch.setattr(torch, "empty_like", lambda like, device: empty_like(like))  # noqa: ARG005
    for name, fake in (("Event", Event), ("Stream", Stream), ("current_stream", Stream)):
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    gpu = torch.device("cuda", 1)
    tokens = TokenSet(tuple(RANGES))
    loader = TokenLoader(Reader(), tokens, batch_size=50, seed=0, pool_rows=300, device=gpu, resident=resident)
    expected = make_loader()
    for found, same in zip(loader.batches(0, 40), expected.batches(0, 40), strict=True):
        assert torch.equal(found, same)
    n_reads = waited.count("read")
    assert n_reads > 4
    assert asked == [gpu] * n_reads
    # Pinned memory is read over by the host, which waits; resident pools by a stream, which waits in the host's place.
    assert waited == (["read", "stream"] if resident else ["host", "read"]) * n_reads
