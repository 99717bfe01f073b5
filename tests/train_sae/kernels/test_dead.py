"""The bound on the number of dead latents that the host has without waiting."""

import pytest
import torch

from tests.train_sae.kernels.conftest import DEVICE
from train_sae.kernels.dead import DeadBound
from train_sae.step.architectures import initial_weights
from train_sae.step.state import TrainState

N_TOKENS, D_SAE = 10, 30


def fire(state: TrainState, share: float, generator: torch.Generator) -> None:
    fired = (torch.rand(D_SAE, generator=generator) < share).to(DEVICE)
    state.count(fired, N_TOKENS, torch.ones((), device=DEVICE), 0.01)


@pytest.mark.parametrize("dead_tokens", [1, 30, 50, 90, 170, 400])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_no_more_latents_are_dead_than_it_says(dead_tokens: int, share: float) -> None:
    state = TrainState(initial_weights(torch.zeros(2, device=DEVICE), D_SAE, seed=0))
    bound, generator = DeadBound(), torch.Generator().manual_seed(0)
    numbers = []
    for step in range(60):
        if step == 30:  # as after a resume
            bound = DeadBound()
        numbers.append((bound.at(state, dead_tokens, N_TOKENS), int(state.dead(dead_tokens).sum())))
        fire(state, share, generator)
    assert all(most >= n_dead for most, n_dead in numbers)
    if dead_tokens < 4 * N_TOKENS:
        assert all(most == n_dead for most, n_dead in numbers)


def test_living_latents_are_not_counted() -> None:
    state = TrainState(initial_weights(torch.zeros(2, device=DEVICE), D_SAE, seed=0))
    bound = DeadBound()
    for _ in range(20):
        assert bound.at(state, 17 * N_TOKENS, N_TOKENS) == 0
        fire(state, 1.0, torch.Generator())


def test_the_number_is_the_one_of_four_steps_ago() -> None:
    state = TrainState(initial_weights(torch.zeros(2, device=DEVICE), D_SAE, seed=0))
    bound, counts = DeadBound(), [3, 5, 0, 9, 1, 2, 4, 8]
    found = []
    for count in counts:
        state.tokens_since_fired.zero_()
        state.tokens_since_fired[:count] = 1000
        found.append(bound.at(state, 1000, N_TOKENS))
        state.step += 1
    assert found == [3, 3, 3, 3, 3, 5, 0, 9]  # the first is waited for and holds for four more steps


def test_steps_that_it_was_not_asked_at_make_it_begin_anew() -> None:
    state = TrainState(initial_weights(torch.zeros(2, device=DEVICE), D_SAE, seed=0))
    bound = DeadBound()
    assert bound.at(state, 1000, N_TOKENS) == 0
    state.step += 2
    state.tokens_since_fired[:7] = 1000
    assert bound.at(state, 1000, N_TOKENS) == 7
