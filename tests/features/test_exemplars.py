from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import features.activity
from collect.reading import ActivationStore
from features.codes import Codes
from features.encoding import encode_store
from features.exemplars import describe_exemplars, top_tokens
from tests.features.conftest import BALL, DEAD, NOISE, SIDE, PlantedVideo, planted_sae


@pytest.fixture(scope="module")
def codes(store: ActivationStore, tmp_path_factory: pytest.TempPathFactory) -> Codes:
    folder = tmp_path_factory.mktemp("codes") / "codes.zarr"
    return encode_store(store, planted_sae(), folder, batch_size=4096, device=torch.device("cpu"))


def brute_force(planted: list[PlantedVideo], latent: int, n: int, per_video: int) -> list[int]:
    tokens: list[tuple[float, int]] = []
    for index, item in enumerate(planted):
        own = item.activations[:, latent].astype(np.float32)
        active = sorted((-float(own[k]), 64 * index + int(k)) for k in np.flatnonzero(own))
        tokens += active[:per_video]
    return [token for _, token in sorted(tokens)[:n]]


@pytest.mark.parametrize("per_video", [1, 2])
@pytest.mark.parametrize("latent", [BALL, NOISE])
def test_top_tokens_are_the_highest_of_different_videos_with_ties_to_the_earlier(
    codes: Codes, store: ActivationStore, planted: list[PlantedVideo], latent: int, per_video: int
) -> None:
    tops = top_tokens(codes, store.videos, n=7, per_video=per_video)
    own = tops[tops["latent"] == latent]
    assert own["token"].tolist() == brute_force(planted, latent, 7, per_video)
    assert own["rank"].tolist() == list(range(7))
    assert (own["token"] // 64 == own["video"]).all()
    assert not (tops["latent"] == DEAD).any()


def test_top_tokens_do_not_depend_on_how_the_codes_are_read(
    codes: Codes, store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = top_tokens(codes, store.videos, n=5, per_video=1)
    monkeypatch.setattr(features.activity, "MAX_NONZEROS", 100)
    pd.testing.assert_frame_equal(top_tokens(codes, store.videos, n=5, per_video=1), whole)


def test_exemplars_say_where_and_when(codes: Codes, store: ActivationStore) -> None:
    tops = top_tokens(codes, store.videos, n=3, per_video=1)
    exemplars = describe_exemplars(tops, store.videos, {store.videos[0].video_id})
    for top, row in zip(tops.itertuples(), exemplars.itertuples(), strict=True):
        t, patch = divmod(int(top.token) % 64, SIDE * SIDE)
        assert (row.t, row.row, row.col) == (t, patch // SIDE, patch % SIDE)
        assert (row.frame_id, row.time_s) == (10 * t, float(t))
        assert (row.x1, row.y2) == (row.col / SIDE, (row.row + 1) / SIDE)
        assert row.video_id == store.videos[int(top.video)].video_id
        assert row.split == ("held_out" if top.video == 0 else "train")
