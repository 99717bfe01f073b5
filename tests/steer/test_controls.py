"""Controls: equal norms on the same tokens, and directions from the family they claim."""

import torch

from steer.controls import (
    covariance_directions,
    matched_change,
    matched_latents,
    moved_change,
    random_directions,
    random_signs,
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_control_has_the_norm_of_the_change_on_every_token() -> None:
    change = torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    for members in (1, 3):
        norms = torch.rand(3, members, generator=generator()) * (change.norm(dim=1, keepdim=True) > 0)
        control = matched_change(change, norms, random_directions(members, 3, generator()))
        torch.testing.assert_close(control.norm(dim=1), torch.tensor([0.0, 5.0, 1.0]))


def test_members_of_a_set_keep_their_proportions() -> None:
    change = torch.tensor([[0.0, 10.0]])
    control = matched_change(change, torch.tensor([[3.0, 4.0]]), torch.eye(2))
    torch.testing.assert_close(control, torch.tensor([[6.0, 8.0]]))


def test_random_directions_have_norm_one_and_no_preference() -> None:
    directions = random_directions(4000, 3, generator())
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(4000))
    # E[u u^T] = I / 3, with a standard error of about 0.3 / sqrt(4000) = 0.005
    assert (directions.T @ directions / 4000 - torch.eye(3) / 3).abs().max() < 0.025


def test_covariance_directions_follow_the_spread_of_the_activations_and_not_their_mean() -> None:
    scale = torch.tensor([10.0, 1.0, 0.1])
    sample = torch.randn(500, 3, generator=generator()) * scale + torch.tensor([0.0, 0.0, 1000.0])
    directions = covariance_directions(200, sample, generator())
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(200))
    shares = (directions**2).mean(dim=0)
    assert shares[0] > 0.8
    assert shares[2] < 0.01


def test_matched_latents_are_the_nearest_in_rate_and_strength_among_the_living() -> None:
    firing_rate = torch.tensor([0.10, 0.11, 0.10, 0.00, 0.50, 0.10])
    strength = torch.tensor([1.0, 1.0, 1.2, 1.0, 1.0, 9.0])
    # log distances from latent 0: 1 -> .095, 2 -> .18, 4 -> 1.6, 5 -> 2.2; 3 is dead
    assert matched_latents(3, 0, firing_rate, strength, torch.tensor([0])).tolist() == [1, 2, 4]
    assert matched_latents(9, 0, firing_rate, strength, torch.tensor([0, 1])).tolist() == [2, 4, 5]


def test_signs_are_both() -> None:
    signs = random_signs(100, generator())
    assert set(signs.tolist()) == {-1.0, 1.0}


def test_a_moved_edit_stands_on_as_many_other_tokens() -> None:
    change = torch.zeros(8, 3)
    change[1], change[4] = torch.tensor([1.0, 0, 0]), torch.tensor([0, 2.0, 0])
    for seed in range(20):
        moved = moved_change(change, torch.Generator().manual_seed(seed))
        assert not moved[[1, 4]].any()
        assert sorted(moved[moved.any(dim=1)].tolist()) == sorted(change[[1, 4]].tolist())


def test_where_too_few_tokens_are_free_a_moved_edit_takes_its_own_too() -> None:
    change = torch.arange(1.0, 5.0)[:, None].repeat(1, 2)
    change[3] = 0
    moved = moved_change(change, torch.Generator().manual_seed(0))
    assert sorted(moved[:, 0].tolist()) == [0.0, 1.0, 2.0, 3.0]
    assert moved[3].any()
