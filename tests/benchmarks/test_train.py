"""The clock of the training step's benchmark."""

import pytest

from benchmarks import train


def test_the_sides_of_a_round_are_timed_in_mirrored_order(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    clock = iter([1.0, 10.0, 100.0, 20.0, 3.0, 5.0, 30.0, 200.0, 40.0, 7.0])

    def seconds(work: object) -> float:
        assert callable(work)
        work()
        return next(clock)

    monkeypatch.setattr(train, "seconds", seconds)
    times = train.interleave(
        lambda: called.append("ours"), lambda: called.append("gemm"), lambda: called.append("sae_lens"), rounds=2
    )
    mirrored = ["ours", "gemm", "sae_lens", "gemm", "ours"]
    assert called == ["ours", "gemm", "sae_lens", *mirrored, *mirrored]
    # Ours took 1 and 3, then 5 and 7; the product 10 and 20, then 30 and 40.
    assert times["ours"] == train.Times([2.0, 6.0], 1.0)
    assert times["gemm"] == train.Times([15.0, 35.0], 10.0)
    assert times["sae_lens"] == train.Times([100.0, 200.0], 100.0)
