"""The plumbing of the quality benchmark."""

from pathlib import Path

import pytest
import torch

from benchmarks.quality import Task, compare, judge, sample
from train_sae.architectures import Weights
from train_sae.export import save_sae, to_sae
from train_sae.normalize import Normalisation

TINY = Task(d_in=16, n_features=16, batch_size=64, n_steps=6, dead_steps=2, n_held_out=512, seeds=(0, 1))


def test_both_sides_are_judged_for_every_architecture() -> None:
    metrics = compare(TINY)
    for arch in ("topk", "batchtopk", "matryoshka"):
        for side in ("ours", "sae_lens"):
            assert metrics[f"{arch}_fvu_{side}"] > 0
            assert 0 <= metrics[f"{arch}_dead_{side}"] <= 16
            assert 0 < metrics[f"{arch}_recovery_{side}"] <= 1
            assert 0 < metrics[f"{arch}_l0_{side}"] <= 16


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
