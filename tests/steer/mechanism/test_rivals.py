"""Rivals: directions with known truth, and a latent that is ahead of them only where it should be."""

import pytest
import torch

from steer.mechanism.rivals import DRAWS, count_means, drawn, rival_rows, text_means
from tests.steer.mechanism.toy_bench import bench_of, target
from tests.steer.toy import SUBJECT

EVIDENCE = {f"v{n}": (0.0, float(n % 3), 0.0, float(n % 3)) for n in range(9)}
COUNTS = {name: 1 + int(values[1]) for name, values in EVIDENCE.items()}
NOISE = {name: torch.randn(4, 4, generator=torch.Generator().manual_seed(place)) for place, name in enumerate(EVIDENCE)}


def test_of_two_groups_the_direction_is_that_between_their_means() -> None:
    means = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    found = drawn(means, torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8]]).repeat(DRAWS, 1))


def test_the_count_difference_finds_the_planted_evidence() -> None:
    bench = bench_of(EVIDENCE, COUNTS)
    found = count_means(bench, SUBJECT)
    assert found is not None
    directions = drawn(*found, torch.Generator().manual_seed(0))
    torch.testing.assert_close(directions[:, 0], torch.ones(DRAWS))  # no noise: the evidence alone differs


def test_where_all_counts_or_all_subjects_are_equal_there_is_no_rival() -> None:
    same = bench_of(EVIDENCE, dict.fromkeys(EVIDENCE, 2))
    assert count_means(same, SUBJECT) is None
    assert text_means(same, SUBJECT) is None
    assert [row["rival"] for row in rival_rows(same, same, target(0))] == ["moved"]


def test_a_latent_that_is_the_rival_is_not_ahead_of_it_and_one_that_is_not_read_is_behind() -> None:
    bench = bench_of(EVIDENCE, COUNTS, noise=NOISE)
    (own, moved) = rival_rows(bench, bench, target(0))
    assert (own["rival"], own["n_draws"], own["n_videos"]) == ("count difference", 2 * DRAWS, 9)
    assert own["latent"] < 0
    assert own["ahead"] == pytest.approx(0.0, abs=0.1)  # the rival is nearly its own direction
    # The toy adds up evidence wherever it is, so where the edit stands does not matter.
    assert moved["rival_largest"] == pytest.approx(moved["latent"], abs=1e-5)
    (idle, _) = rival_rows(bench, bench, target(5))
    assert idle["latent"] == 0.0
    assert idle["ahead_high"] < 0
