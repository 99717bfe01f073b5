"""The plumbing of the quality benchmark."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.quality import Data, Residuals, Task, collect_residuals, compare, judge, sample
from train_sae.batches.normalisation import Normalisation
from train_sae.lens.export import save_sae, to_sae
from train_sae.step.architectures import Weights

TINY = Task(d_in=16, n_features=16, batch_size=64, n_steps=6, dead_steps=2, n_held_out=512, seeds=(0, 1))


def test_both_sides_are_judged_for_every_architecture() -> None:
    metrics = compare(TINY, "", [sample(TINY, seed) for seed in TINY.seeds])
    for arch in ("topk", "batchtopk", "matryoshka"):
        for side in ("ours", "ours_bf16", "sae_lens"):
            assert metrics[f"{arch}_fvu_{side}"] > 0
            assert 0 <= metrics[f"{arch}_dead_{side}"] <= 16
            assert 0 < metrics[f"{arch}_recovery_{side}"] <= 1
            assert 0 < metrics[f"{arch}_l0_{side}"] <= 16


def test_residuals_come_from_videos_of_both_splits_and_are_judged_without_a_truth(tmp_path: Path) -> None:
    task, data = collect_residuals(Residuals(n_videos=3, n_epochs=2, task=TINY), tmp_path)
    assert data.train.shape[1] == data.held_out.shape[1] == 128
    assert len(data.train) == task.n_steps * task.batch_size
    assert task.n_held_out == len(data.held_out) > 0
    # Every token of the train videos twice, but for the end that fills no batch.
    _, counts = data.train.unique(dim=0, return_counts=True)
    assert counts.max() <= 2 * 2  # a still picture repeats tokens
    small = replace(task, d_in=128, n_features=16, n_steps=6, n_held_out=256)
    few = Data(None, data.train[: 6 * 64], data.held_out[:256], 2)
    metrics = compare(replace(small, seeds=(0,)), "_residual", [few])
    assert 0 < metrics["topk_residual_fvu_ours"] < 10
    assert "topk_residual_recovery_ours" not in metrics


def test_sae_lens_gets_the_rate_that_suits_it_best() -> None:
    data = [sample(TINY, seed) for seed in TINY.seeds]
    rates = (0.5, 1.0, 8.0)
    best = compare(TINY, "", data, sides=("ours", "sae_lens"), rates=rates)
    fvu = {
        rate: compare(replace(TINY, rate=rate), "", data, sides=("ours", "sae_lens"))["topk_fvu_sae_lens"]
        for rate in rates
    }
    assert best["topk_fvu_sae_lens"] == min(fvu.values()) < max(fvu.values())
    assert fvu[best["topk_rate_sae_lens"]] == min(fvu.values())


def test_the_true_dictionary_is_recovered_in_full(tmp_path: Path) -> None:
    data = sample(TINY, seed=0)
    features = data.model.feature_dict.feature_vectors.detach()
    # The pseudo-inverse of 16 independent directions reads off each feature's strength exactly.
    weights = Weights(
        enc=torch.linalg.pinv(features.double()).T.float(),
        dec=features,
        b_enc=torch.zeros(16),
        b_dec=data.model.feature_dict.bias.detach(),
    )
    identity = Normalisation(1.0, torch.zeros(16, dtype=torch.float64))
    sae = to_sae(weights, arch="batchtopk", k=1, normalisation=identity, threshold=1e-2, metadata={})
    save_sae(tmp_path, sae, torch.zeros(16))
    found = judge(TINY, data, tmp_path)
    assert found["recovery"] == pytest.approx(1.0, abs=1e-4)
    assert found["fvu"] < 1e-3
    assert found["f1"] > 0.95
