"""Interventions: what they do to activations and residuals, by hand, with the error kept."""

import pytest
import torch

from steer.edits.interventions import edited, residual_change
from steer.edits.operations import Operation

F = torch.tensor([0.0, 2.0, 0.5])
DECODER = torch.tensor([[3.0, 4.0]])


def _after(text: str) -> torch.Tensor:
    return edited(F, Operation.parse(text), clamp_value=1.5, median_norm=10.0, decoder_norm=5.0)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("ablate", [0.0, 0.0, 0.0]),
        ("scale:2", [0.0, 4.0, 1.0]),
        ("clamp:p50", [0.0, 1.5, 1.5]),  # silent tokens stay silent
        ("add:0.5", [1.0, 3.0, 1.5]),  # 0.5 x 10 / 5 = 1 more everywhere
    ],
)
def test_activations_after_an_operation(operation: str, expected: list[float]) -> None:
    assert _after(operation).tolist() == expected


def test_the_change_is_the_difference_times_the_decoder_direction() -> None:
    change = residual_change(F[:, None], _after("ablate")[:, None], DECODER)
    # (0 - f) (3, 4)
    assert change.tolist() == [[0.0, 0.0], [-6.0, -8.0], [-1.5, -2.0]]


def test_adding_moves_the_residual_by_the_given_share_of_the_median_norm() -> None:
    change = residual_change(F[:, None], _after("add:-0.5")[:, None], DECODER)
    assert change.norm(dim=1).tolist() == pytest.approx([5.0, 5.0, 5.0])


def test_the_error_is_kept() -> None:
    # Two latents; only the first is edited, so x' must differ from x by its share alone, whatever x is.
    x = torch.tensor([[1.0, 1.0], [7.0, -3.0], [2.0, 2.0]])
    ablated = x + residual_change(F[:, None], torch.zeros(3, 1), DECODER)
    doubled = x + residual_change(F[:, None], 2 * F[:, None], DECODER)
    assert torch.equal(x, (ablated + doubled) / 2)
    assert torch.equal(ablated[0], x[0])


def test_operations_with_equal_norms_share_a_magnitude() -> None:
    names = {
        text: Operation.parse(text).magnitude for text in ("ablate", "scale:2", "scale:0.5", "add:0.1", "add:-0.1")
    }
    assert names["ablate"] == names["scale:2"] != names["scale:0.5"]
    assert names["add:0.1"] == names["add:-0.1"]
