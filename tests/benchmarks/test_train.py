"""The clock of the training step's benchmark."""

from benchmarks import train


class Clocked:
    """A side that takes known times."""

    def __init__(self, name: str, seconds: list[float], called: list[str]) -> None:
        self._name, self._seconds, self._called = name, iter(seconds), called

    def seconds(self) -> float:
        self._called.append(self._name)
        return next(self._seconds)


def test_the_sides_of_a_round_are_timed_in_mirrored_order() -> None:
    called: list[str] = []
    times = train.interleave(
        {
            "ours": Clocked("ours", [1, 3, 5, 7], called),
            "gemm": Clocked("gemm", [10, 20, 30, 40], called),
            "sae_lens": Clocked("sae_lens", [100, 200], called),
            "peer": Clocked("peer", [50, 60], called),
        },
        rounds=2,
    )
    assert called == ["ours", "gemm", "sae_lens", "peer", "gemm", "ours"] * 2
    # Ours took 1 and 3, then 5 and 7; the product 10 and 20, then 30 and 40.
    assert times["ours"] == train.Times([2.0, 6.0], 1.0)
    assert times["gemm"] == train.Times([15.0, 35.0], 10.0)
    assert times["sae_lens"] == train.Times([100.0, 200.0], 100.0)
