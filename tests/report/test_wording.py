"""Numbers and operations as a reader meets them."""

import numpy as np
import pytest

from report.wording import action, interval, number, percent, probability, signed


def test_numbers_are_written_for_readers() -> None:
    assert (number(-0.12345), signed(0.5, 1), signed(-2, 0), percent(1 / 3)) == ("−0.123", "+0.5", "−2", "33\u00a0%")
    assert [number(missing) for missing in (None, np.nan)] == ["–", "–"]
    assert (interval(-1, 2, 1, sign=True), interval(None, 2)) == ("[−1.0, +2.0]", "")
    assert (probability(0.0004), probability(0.01), probability(None)) == ("< 0.001", "0.010", "–")


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ("ablate", "Ablating"),
        ("scale:2", "Doubling"),
        ("scale:0.5", "Scaling by 0.5"),
        ("clamp:p95", "Clamping to its p95"),
        ("add:-0.25", "Adding −0.25 median norms of"),
    ],
)
def test_every_operation_has_words(operation: str, words: str) -> None:
    assert action(operation) == words
