"""The training state and its tensors."""

import torch

from train_sae.step.architectures import initial_weights
from train_sae.step.fastest import StepSettings, sparse_step
from train_sae.step.state import TrainState

SETTINGS = StepSettings(arch="batchtopk", k=2, dead_tokens=50, aux_k=2)


def test_a_state_rebuilt_from_its_tensors_goes_on_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(20, 4, generator=generator) for _ in range(6)]
    state = TrainState(initial_weights(torch.zeros(4), 12, seed=0))
    for x in batches[:3]:
        sparse_step(state, x, SETTINGS, 1e-2)
    other = TrainState.from_tensors({name: tensor.clone() for name, tensor in state.tensors().items()}, state.step)
    for x in batches[3:]:
        sparse_step(state, x, SETTINGS, 1e-2)
        sparse_step(other, x, SETTINGS, 1e-2)
    assert other.step == state.step == 6
    for name, tensor in state.tensors().items():
        assert torch.equal(other.tensors()[name], tensor), name


def test_not_a_number_in_any_weight_is_noticed() -> None:
    state = TrainState(initial_weights(torch.zeros(4), 12, seed=0))
    assert state.is_finite()
    with torch.no_grad():
        state.weights.b_enc[3] = torch.nan
    assert not state.is_finite()
