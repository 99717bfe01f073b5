import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collect.artefact.json_fields import Fields
from collect.store.moments import RunningMoments


def gathered(rows: torch.Tensor, cuts: list[int]) -> RunningMoments:
    running = RunningMoments(rows.shape[1])
    for part in torch.tensor_split(rows, sorted(cuts)):
        running.add(part)
    return running


def test_numbers_by_hand() -> None:
    # Means (1 + 3) / 2 = 2 and (4 + 0) / 2 = 2; second moments (1 + 9) / 2 = 5 and (16 + 0) / 2 = 8.
    moments = gathered(torch.tensor([[1.0, 4.0], [3.0, 0.0]]), []).result()
    assert moments.n == 2
    assert moments.mean.tolist() == [2.0, 2.0]
    assert moments.second_moment.tolist() == [5.0, 8.0]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_median_norm_is_exact_to_half_a_per_cent(scale: float) -> None:
    rows = scale * torch.randn(4001, 16, generator=torch.Generator().manual_seed(0))
    assert gathered(rows, []).result().median_norm == pytest.approx(rows.norm(dim=1).median().item(), rel=0.005)


def test_median_norm_of_zeros_is_nearly_zero() -> None:
    assert gathered(torch.zeros(3, 2), []).result().median_norm < 1e-6


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=4), st.integers(0, 40))
def test_merging_equals_adding(cuts: list[int], at: int) -> None:
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    parts = gathered(rows[:at], []), gathered(rows[at:], [])
    parts[0].merge(parts[1])
    one, two = gathered(rows, cuts), parts[0]
    assert one.n == two.n == 40
    assert np.allclose(one.total, two.total)
    assert np.allclose(one.squares, two.squares)
    assert np.array_equal(one.norms, two.norms)


def test_json_round_trip_is_exact() -> None:
    running = gathered(torch.randn(50, 4, generator=torch.Generator().manual_seed(2)), [])
    again = RunningMoments.from_fields(Fields(json.loads(json.dumps(running.to_json())), "moments"), 4)
    for name in ("n", "total", "squares", "norms"):
        assert np.array_equal(getattr(again, name), getattr(running, name))


def test_bfloat16_is_summed_without_further_rounding() -> None:
    rows = torch.full((3000, 1), 1.0078125, dtype=torch.bfloat16)
    assert gathered(rows, []).result().mean.item() == 1.0078125


def test_squares_beyond_float32_are_counted_all_the_same() -> None:
    moments = gathered(torch.tensor([[1e25, 0.0], [1e25, 3.0]]), []).result()
    assert moments.second_moment == pytest.approx([1e50, 4.5], rel=1e-6)
    assert moments.mean == pytest.approx([1e25, 1.5])
