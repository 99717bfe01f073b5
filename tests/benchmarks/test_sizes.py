"""The activations of a size."""

import torch

from benchmarks.sizes import Size, batches


def test_batches_of_a_size_are_the_same_in_every_process() -> None:
    size = Size(4, 8, 1, 5, rounds=1)
    first = batches(size)
    batches.cache_clear()
    assert all(torch.equal(a, b) for a, b in zip(first, batches(size), strict=True))
