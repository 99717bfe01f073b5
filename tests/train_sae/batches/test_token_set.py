"""Which rows are trained on."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from collect.errors import UserError
from collect.reading import ActivationStore
from tests.train_sae.stores import SITE, VIDEO_TOKENS, write_run
from train_sae.batches.token_set import RowRange, TokenSet, filtered_rows, split_by_video

N_ROWS = 6 * VIDEO_TOKENS


@dataclass(frozen=True)
class Video:
    video_id: str
    row_start: int
    row_stop: int


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return ActivationStore.open(write_run(tmp_path_factory.mktemp("run"), 6) / "activations")


def test_split_puts_whole_videos_on_one_side() -> None:
    videos = [Video("a", 0, 10), Video("b", 10, 15), Video("c", 15, 40)]
    split = split_by_video(videos, frozenset({"b", "absent"}))
    assert split.train == (RowRange(0, 10), RowRange(15, 40))
    assert split.held_out == (RowRange(10, 15),)


def test_no_filter_keeps_everything(store: ActivationStore) -> None:
    assert filtered_rows(store, SITE, ()) is None


def test_every_other_frame(store: ActivationStore) -> None:
    kept = filtered_rows(store, SITE, ("every:2",))
    assert kept is not None
    # A video has 4 time steps of 4 x 4 tokens: 16 rows kept, 16 left out.
    assert kept.tolist() == ([True] * 16 + [False] * 16) * 12
    assert TokenSet((RowRange(0, 40), RowRange(64, 80)), kept).n_tokens == 16 + 8 + 16


def test_sinks_are_left_out_by_their_norm(store: ActivationStore) -> None:
    norms = store.read(SITE, 0, N_ROWS).norm(dim=1).numpy()
    kept = filtered_rows(store, SITE, ("sink:1.1",))
    assert kept is not None
    assert np.array_equal(kept, norms <= 1.1 * store.moments(SITE).median_norm)
    assert 0 < kept.sum() < N_ROWS


def test_a_mask_is_combined_with_other_filters(store: ActivationStore, tmp_path: Path) -> None:
    mask = np.arange(N_ROWS) % 3 == 0
    np.save(tmp_path / "boxes.npy", mask)
    kept, frames = filtered_rows(store, SITE, (f"mask:{tmp_path / 'boxes.npy'}", "every:2")), np.arange(N_ROWS) // 16
    assert kept is not None
    assert np.array_equal(kept, mask & (frames % 2 == 0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros(3, dtype=np.bool_), "holds bool of shape (3,) where bool of shape (384,) is needed"),
        (np.zeros(N_ROWS), "holds float64 of shape (384,)"),
        (np.array([object()]), "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_mask_is_a_user_error(
    store: ActivationStore, tmp_path: Path, content: np.ndarray | None, message: str
) -> None:
    if content is not None:
        np.save(tmp_path / "boxes.npy", content, allow_pickle=True)
    with pytest.raises(UserError, match=re.escape(message)):
        filtered_rows(store, SITE, (f"mask:{tmp_path / 'boxes.npy'}",))


@pytest.mark.parametrize("text", ["every", "every:0", "every:x", "sink:-1", "sink:nan", "mask:", "boxes:1", ""])
def test_a_filter_of_another_form_is_a_user_error(store: ActivationStore, text: str) -> None:
    with pytest.raises(UserError, match=r"is not a filter: write every:N, sink:FACTOR or mask:FILE\.npy"):
        filtered_rows(store, SITE, (text,))
