from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import features.activity
from collect.reading import ActivationStore
from features.activity import measure_activity
from features.codes import Codes
from features.encoding import encode_store
from tests.features.conftest import BALL, CLAP, DEAD, N_T, SIDE, PlantedVideo, plant_videos, planted_sae, write_store


def encode(store: ActivationStore, folder: Path) -> Codes:
    return encode_store(store, planted_sae(), folder, batch_size=4096, device=torch.device("cpu"))


def test_activity_equals_that_of_dense_activations(
    store: ActivationStore, planted: list[PlantedVideo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features.activity, "MAX_NONZEROS", 300)
    activity = measure_activity(encode(store, tmp_path / "codes.zarr"), store.videos)
    dense = np.stack([item.activations.astype(np.float32) for item in planted]).astype(np.float64)
    flat = dense.reshape(-1, dense.shape[-1])
    np.testing.assert_allclose(activity.firing_rate, (flat > 0).mean(axis=0))
    np.testing.assert_array_equal(activity.n_videos_active, (dense > 0).any(axis=1).sum(axis=0))
    np.testing.assert_allclose(activity.max_activation, flat.max(axis=0))
    np.testing.assert_allclose(activity.mean_active[BALL], flat[flat[:, BALL] > 0, BALL].mean())
    assert np.isnan(activity.mean_active[DEAD])
    assert np.isnan(activity.temporal_autocorrelation[DEAD])
    series = dense.reshape(len(planted), N_T, SIDE * SIDE, -1)
    for latent in (BALL, CLAP):
        before, after = series[:, :-1, :, latent].reshape(-1), series[:, 1:, :, latent].reshape(-1)
        expected = np.corrcoef(before, after)[0, 1]
        assert activity.temporal_autocorrelation[latent] == pytest.approx(expected)
    # Clapping goes on for the last two of four frames, in the same patches.
    assert activity.mean_run_length[CLAP] == 2.0


def test_spatial_autocorrelation_by_hand(tmp_path: Path) -> None:
    item = plant_videos(1)[0]
    item.activations[:] = 0
    # The left half of every frame: of 12 horizontal and 12 vertical pairs, 4 cross the edge. With shares
    # a = 14/24 (first of pair) and b = 10/24 (second) of ones and 10/24 where both are, the correlation follows.
    item.activations.reshape(N_T, SIDE, SIDE, -1)[:, :, :2, 0] = 1.0
    store = write_store(tmp_path / "activations", [item])
    activity = measure_activity(encode(store, tmp_path / "codes.zarr"), store.videos)
    a, b, both = 14 / 24, 10 / 24, 10 / 24
    expected = (both - a * b) / np.sqrt(a * (1 - a) * b * (1 - b))
    assert activity.spatial_autocorrelation[0] == pytest.approx(expected)
    assert activity.mean_run_length[0] == N_T
