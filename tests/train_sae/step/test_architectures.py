"""Which tensors each architecture has, how they begin, which are trained."""

from typing import get_args

import pytest
import torch

from train_sae.config import Architecture
from train_sae.options import SaeOptions
from train_sae.step.architectures import Weights, initial_weights, trained_names


def test_initial_weights_are_tied_unit_directions_and_depend_on_the_seed_only() -> None:
    mean = torch.tensor([1.0, -2.0, 3.0])
    first, again, other = (initial_weights(mean, 5, seed) for seed in (0, 0, 1))
    torch.testing.assert_close(first.dec.norm(dim=1), torch.ones(5))
    assert torch.equal(first.enc, first.dec)
    assert first.enc.data_ptr() != first.dec.data_ptr()
    assert torch.equal(first.b_dec, mean)
    assert torch.equal(first.dec, again.dec)
    assert not torch.equal(first.dec, other.dec)


@pytest.mark.parametrize("arch", get_args(Architecture))
def test_weights_come_back_from_their_tensors(arch: Architecture) -> None:
    weights = initial_weights(torch.ones(3), 5, 0, arch, SaeOptions(jumprelu_init_threshold=0.5))
    back = Weights.from_tensors({**weights.tensors(), "something": torch.zeros(1)})
    assert back.tensors().keys() == weights.tensors().keys()
    assert (back.enc is back.dec) is (arch == "matching_pursuit")
    for name, tensor in weights.tensors().items():
        assert back.tensors()[name] is tensor


def test_each_architecture_trains_its_own_tensors() -> None:
    def names(arch: Architecture) -> set[str]:
        return set(trained_names(arch, initial_weights(torch.ones(3), 5, 0, arch)))

    plain = {"enc", "dec", "b_enc", "b_dec"}
    assert names("topk") == names("batchtopk") == names("matryoshka_batchtopk") == names("standard") == plain
    assert names("jumprelu") == plain | {"threshold"}
    assert names("gated") == plain | {"b_mag", "r_mag"}
    assert names("matching_pursuit") == {"dec", "b_dec"}
    assert names("frozen_decoder") == {"enc", "b_enc", "b_dec"}


def test_jumprelu_thresholds_start_where_they_are_told() -> None:
    weights = initial_weights(torch.ones(3), 5, 0, "jumprelu", SaeOptions(jumprelu_init_threshold=0.5))
    assert weights.threshold is not None
    assert weights.threshold.tolist() == [0.5] * 5
