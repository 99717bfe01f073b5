"""The shuffle numbers of the loader's benchmark."""

import numpy as np
import pytest

from benchmarks.loader import BATCH, shuffle
from train_sae.batches.order import TokenOrder
from train_sae.batches.token_set import RowRange, TokenSet


class InOrder(TokenOrder):
    """An order that does not shuffle at all."""

    def pool(self, epoch: int, pool: int, lane: int = 0):  # type: ignore[no-untyped-def]
        found = super().pool(epoch, pool, lane)
        return found._replace(places=np.arange(len(found.rows)))


def test_a_permutation_of_everything_is_ideal() -> None:
    # One pool of four videos of 4,096 tokens: two batches of independent draws without repetition.
    token_order = TokenOrder(TokenSet((RowRange(0, 2 * BATCH),)), seed=0)
    found = shuffle(token_order, n_videos=4, n_batches=2)
    assert found["videos_per_batch"] == 4
    # Of 4,095 others of its video and 63 of its unit, a token meets (8192 − 1) / (16384 − 1), about half.
    assert found["video_mates_ideal"] == pytest.approx(4095 * 8191 / 16383)
    assert found["video_mates"] == pytest.approx(found["video_mates_ideal"], rel=0.02)
    assert found["local_mates"] == pytest.approx(63 * 8191 / 16383, rel=0.02)


def test_without_shuffling_a_batch_holds_whole_videos() -> None:
    token_order = InOrder(TokenSet((RowRange(0, 2 * BATCH),)), seed=0)
    found = shuffle(token_order, n_videos=4, n_batches=2)
    assert found["videos_per_batch"] == 2
    assert found["video_mates"] == 4095
    assert found["local_mates"] == 63
