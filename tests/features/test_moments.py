"""Moments against a plain reference, on planted codes, and their shares by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float32
from scipy import sparse

import features.activity
from collect.artefact.table import to_parquet
from collect.reading import ActivationStore
from features.codes import Codes
from features.encoding import encode_store
from features.moments import (
    FIFTHS,
    GROUPS,
    MOMENTS,
    N_FIFTH,
    N_RANDOM,
    N_TOP,
    StoredSteps,
    all_moments,
    describe_moments,
    find_moments,
    moments_of,
)
from tests.features.conftest import planted_sae


def steps_of(*shapes: tuple[int, int]) -> StoredSteps:
    """Videos of (time steps, patches), one after another."""
    sizes = [n_t * n_patches for n_t, n_patches in shapes]
    return StoredSteps(
        row_start=np.cumsum([0, *sizes[:-1]]).astype(np.int64),
        n_patches=np.array([n_patches for _, n_patches in shapes], dtype=np.int64),
    )


def reference(
    dense: Float32[np.ndarray, " token"], shapes: list[tuple[int, int]]
) -> list[tuple[int, int, int, int, int, float, int, float]]:
    """The moments of one latent, walked step by step: (video, first, last, t, patch, peak, tokens, mass)."""
    found: list[tuple[int, int, int, int, int, float, int, float]] = []
    start = 0
    for video, (n_t, n_patches) in enumerate(shapes):
        clip = dense[start : start + n_t * n_patches].reshape(n_t, n_patches)
        start += n_t * n_patches
        highest = clip.max(axis=1)
        run: list[int] = []
        has_fallen = False

        def close(run: list[int], video: int = video, clip: np.ndarray = clip, highest: np.ndarray = highest) -> None:
            if not run:
                return
            t = max(run, key=lambda each: (highest[each], -each))
            own = clip[run]
            patch = int(np.flatnonzero(clip[t] == highest[t])[0])
            mass = float(own.sum(dtype=np.float64))
            found.append((video, run[0], run[-1], t, patch, float(highest[t]), int((own > 0).sum()), mass))

        for t in range(n_t):
            if highest[t] == 0:
                close(run)
                run, has_fallen = [], False
                continue
            if run:
                if highest[t] > highest[t - 1] and has_fallen:
                    close(run)
                    run, has_fallen = [], False
                elif highest[t] < highest[t - 1]:
                    has_fallen = True
            run.append(t)
        close(run)
    return found


def listed(codes: sparse.csc_array, steps: StoredSteps) -> list[tuple[int, int, int, int, int, float, int, float]]:
    found = all_moments(codes, steps)
    names = ("video", "t_first", "t_last", "t", "patch", "activation", "n_tokens", "mass")
    return list(zip(*(getattr(found, name).tolist() for name in names), strict=True))


@settings(max_examples=200)
@given(data=st.data())
def test_moments_are_those_of_a_walk_through_every_clip(data: st.DataObject) -> None:
    shapes = data.draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=3))
    n_tokens = sum(n_t * n_patches for n_t, n_patches in shapes)
    values = data.draw(st.lists(st.sampled_from([0, 0, 1, 2, 3]), min_size=n_tokens, max_size=n_tokens))
    dense = np.array(values, dtype=np.float32)
    codes = sparse.csc_array(dense[:, None])
    codes.eliminate_zeros()
    assert listed(codes, steps_of(*shapes)) == reference(dense, shapes)


def test_a_moment_ends_where_activation_rises_again_after_it_fell() -> None:
    # One patch per step; 1 3 3 4 is one rise, 4 2 one fall, and the next 2 -> 5 begins another moment at the 5.
    dense = np.array([1, 3, 3, 4, 2, 2, 5, 0, 1, 0], dtype=np.float32)
    codes = sparse.csc_array(dense[:, None])
    codes.eliminate_zeros()
    found = all_moments(codes, steps_of((10, 1)))
    assert found.t_first.tolist() == [0, 6, 8]
    assert found.t_last.tolist() == [5, 6, 8]
    assert found.t.tolist() == [3, 6, 8]
    assert found.mass.tolist() == [15.0, 5.0, 1.0]


@pytest.fixture(scope="module")
def codes(store: ActivationStore, tmp_path_factory: pytest.TempPathFactory) -> Codes:
    folder = tmp_path_factory.mktemp("moments") / "codes.zarr"
    return encode_store(store, planted_sae(), folder, batch_size=4096, device=torch.device("cpu"))


def test_every_activation_lies_in_one_moment(codes: Codes, store: ActivationStore) -> None:
    latents = np.arange(codes.d_sae)
    matrix = codes.by_latent(latents)
    found = all_moments(matrix, StoredSteps.of(store.videos))
    mass = np.bincount(found.latent, weights=found.mass, minlength=len(latents))
    np.testing.assert_allclose(mass, matrix.toarray().astype(np.float64).sum(axis=0))
    assert (np.bincount(found.latent, weights=found.n_tokens, minlength=len(latents)) == np.diff(matrix.indptr)).all()


def test_groups_and_their_shares(codes: Codes, store: ActivationStore) -> None:
    kept = find_moments(codes, store.videos, seed=3)
    every = all_moments(codes.by_latent(np.arange(codes.d_sae)), StoredSteps.of(store.videos))
    for latent, rows in kept.groupby("latent"):
        own = every.latent == latent
        order = np.argsort(-every.activation[own], kind="stable")
        mass = every.mass[own][order] / every.mass[own].sum()
        n = int(own.sum())
        assert not rows.duplicated(["group", "rank"]).any()
        for group, part in rows.groupby("group"):
            assert part["rank"].tolist() == list(range(len(part)))
            assert (np.diff(part["activation"]) <= 0).all()
            name = GROUPS[int(str(group))]
            share = part["group_mass_share"].iloc[0]
            if name == "top":
                assert part["video"].is_unique
                assert len(part) == min(N_TOP, len(np.unique(every.video[own])))
                np.testing.assert_allclose(share, part["mass_share"].sum())
            elif name == "random":
                assert 1 <= len(part) <= N_RANDOM
                np.testing.assert_allclose(share, 1.0)
                assert (part["group_n_tokens"] == every.n_tokens[own].sum()).all()
            else:
                fifth = len(FIFTHS) - 1 - FIFTHS.index(name)  # from the highest
                members = slice(n * fifth // 5, n * (fifth + 1) // 5)
                np.testing.assert_allclose(share, mass[members].sum())
                highest = every.activation[own][order][members]
                assert len(part) <= N_FIFTH
                assert part["activation"].between(highest.min(), highest.max()).all()
                assert (part["group_n_moments"] == len(highest)).all()


def test_fifths_do_not_repeat_the_top_while_there_is_something_else() -> None:
    # Twenty videos with one moment each: the fifth with the highest peaks holds four, all of them of the top.
    dense = np.arange(1, 21, dtype=np.float32)
    found = moments_of(sparse.csc_array(dense[:, None]), np.array([5]), steps_of(*[(1, 1)] * 20), seed=0)
    top = set(found.loc[found["group"] == 0, "video"])
    assert top == set(range(12, 20))
    assert set(found.loc[found["group"] == GROUPS.index("q5"), "video"]) == {16, 17, 18, 19}
    assert set(found.loc[found["group"] == GROUPS.index("q3"), "video"]) == {8, 9, 10, 11}


def test_draws_depend_on_seed_and_latent_and_not_on_how_codes_are_read(
    codes: Codes, store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find_moments(codes, store.videos, seed=3)
    assert not find_moments(codes, store.videos, seed=4).equals(whole)
    monkeypatch.setattr(features.activity, "MAX_NONZEROS", 100)
    pd.testing.assert_frame_equal(find_moments(codes, store.videos, seed=3), whole)


def test_the_table_says_where_and_when(codes: Codes, store: ActivationStore) -> None:
    held_out = {store.videos[1].video_id}
    table = describe_moments(find_moments(codes, store.videos, seed=0), store.videos, held_out)
    assert to_parquet(table, MOMENTS, "moments")
    by_id = {video.video_id: video for video in store.videos}
    for moment in table.itertuples():
        video = by_id[str(moment.video_id)]
        assert moment.t_first <= moment.t <= moment.t_last
        assert moment.start_s == video.grid.spans_s[moment.t_first, 0]
        assert moment.stop_s == video.grid.spans_s[moment.t_last, 1]
        assert moment.split == ("held_out" if moment.video_id in held_out else "train")
        rank = (moment.t * video.grid.n_rows + moment.row) * video.grid.n_cols + moment.col
        tokens, values = codes.column(int(moment.latent))
        at = int(np.flatnonzero(tokens == video.row_start + rank)[0])
        assert values[at] == np.float32(moment.activation)


def test_a_latent_that_never_fires_has_no_moments() -> None:
    empty = sparse.csc_array((4, 2), dtype=np.float32)
    found = moments_of(empty, np.array([0, 1]), steps_of((4, 1)), seed=0)
    assert len(found) == 0
    assert len(describe_moments(found, [], set())) == 0
