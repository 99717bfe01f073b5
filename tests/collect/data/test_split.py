from hypothesis import given
from hypothesis import strategies as st

from collect.data.split import held_out_ids

ids = st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=60)


def unknown(names: set[str]) -> list[tuple[str, str]]:
    return [(name, "unknown") for name in sorted(names)]


def test_official_splits_decide_where_both_are_there() -> None:
    videos = [("a", "train"), ("b", "valid"), ("c", "train"), ("d", "test")]
    assert held_out_ids(videos) == {"b", "d"}


def test_the_fraction_is_kept_in_the_long_run() -> None:
    # 10,000 draws with probability 0.3 have a standard deviation of 46.
    n = len(held_out_ids([(f"video_{i}", "valid") for i in range(10_000)]))
    assert abs(n - 3000) < 4 * 46


@given(ids)
def test_neither_side_is_empty(names: set[str]) -> None:
    assert 0 < len(held_out_ids(unknown(names))) < len(names)


@given(ids)
def test_order_and_repetition_do_not_matter(names: set[str]) -> None:
    videos = unknown(names)
    assert held_out_ids([*reversed(videos), *videos]) == held_out_ids(videos)


@given(ids, st.text(min_size=1, max_size=8))
def test_another_video_moves_no_other_by_much(names: set[str], newcomer: str) -> None:
    # Only the rule that neither side is empty can move a video, and then one.
    before, after = held_out_ids(unknown(names)), held_out_ids(unknown(names | {newcomer}))
    assert len((before ^ after) - {newcomer}) <= 1


def test_a_larger_fraction_holds_out_a_superset() -> None:
    videos = [(f"v{i}", "valid") for i in range(50)]
    assert held_out_ids(videos, 0.2) < held_out_ids(videos, 0.6)


def test_a_single_video_is_not_held_out_unless_its_hash_says_so() -> None:
    assert held_out_ids([("a", "train")], fraction=0.0) == frozenset()
    assert held_out_ids([("a", "train")], fraction=1.0) == {"a"}
