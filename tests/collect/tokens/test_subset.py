from dataclasses import dataclass

import numpy as np

from collect.tokens.choice import TokenChoice
from collect.tokens.grid import TokenGrid, frame_spans
from collect.tokens.subset import choose_tokens, covered_share, on_tracks


@dataclass
class Boxed:
    boxes: np.ndarray
    times_s: np.ndarray


def grid_of(n_t: int = 4) -> TokenGrid:
    """A token a second, two rows of two columns: patches are the quarters of the frame."""
    ids = np.arange(n_t, dtype=np.int64)
    return TokenGrid.uniform(n_rows=2, n_cols=2, spans_s=frame_spans(ids * 1.0, 10.0), frame_ids=ids)


def test_all_is_the_grid_itself() -> None:
    chosen = choose_tokens(TokenChoice.parse("all"), grid_of(), ())
    assert chosen.is_whole
    assert chosen.ranks.tolist() == list(range(16))
    assert chosen.grid.to_json() == grid_of().to_json()


def test_every_third_time_step_is_a_whole_grid_of_fewer_steps() -> None:
    chosen = choose_tokens(TokenChoice.parse("every:3"), grid_of(), ())
    assert chosen.is_whole
    assert chosen.grid.n_tokens == len(chosen.ranks) == 8
    assert chosen.ranks.tolist() == [0, 1, 2, 3, 12, 13, 14, 15]  # steps 0 and 3
    assert chosen.grid.frame_ids.tolist() == [0, 3]
    assert chosen.grid.spans_s[:, 0].tolist() == [0.0, 3.0]


def test_tokens_on_a_track_move_with_it() -> None:
    # From the top left quarter at 0 s to the top right one at 1 s; annotated again at 3 s, which is too far away to
    # know where it was at 2 s. A token spans 0.1 s, so that within it the box moves by 0.05 of the frame's width.
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0.5, 0.5, 1, 1]], dtype=float)
    track = Boxed(boxes, np.array([0.0, 1.0, 3.0]))
    chosen = choose_tokens(TokenChoice.parse("tracks"), grid_of(5), (track,))
    assert not chosen.is_whole
    assert chosen.ranks.tolist() == [0, 5, 15]
    assert chosen.grid.n_t == 5


def test_boxes_move_in_a_straight_line_between_annotations() -> None:
    track = Boxed(np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5]], dtype=float), np.array([-0.5, 0.5]))
    # At 0 s the box is [0.25, 0.75] wide: half of either upper patch. At 0.1 s it is [0.3, 0.8].
    assert np.flatnonzero(on_tracks(grid_of(1), (track,))).tolist() == [0, 1]


def test_half_a_patch_is_enough_and_less_is_not() -> None:
    for width, expected in ((0.25, [True, False, False, False]), (0.24, [False] * 4)):
        track = Boxed(np.array([[0, 0, width, 0.5]]), np.array([0.0]))
        assert on_tracks(grid_of(1), (track,)).tolist() == expected


def test_no_track_no_token() -> None:
    assert not len(choose_tokens(TokenChoice.parse("tracks"), grid_of(), ()).ranks)
    empty = Boxed(np.zeros((0, 4)), np.zeros(0))
    assert not on_tracks(grid_of(), (empty,)).any()


def test_covered_share() -> None:
    # A box of half the frame's width and a quarter of its height around the middle of the upper half's boundary.
    shares = covered_share(grid_of(1).boxes, np.array([0.25, 0.25, 0.75, 0.5]))
    assert np.allclose(shares, [[0.25, 0.25], [0, 0]])  # 0.25 × 0.25 of 0.5 × 0.5
