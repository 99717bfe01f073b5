from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.labels.labelling import OBJECTS, PARTS
from features.labels.regions import RegionLabels, join_regions
from features.labels.unit_labels import Space, UnitLabels, VideoLabels, stack

NAMES = ("a", "b", "c")


def random_video(rng: np.random.Generator, kinds: np.ndarray) -> VideoLabels:
    """Labels in which tokens of one kind are alike, and others may be."""
    n_kinds = int(kinds.max()) + 1
    touched = rng.random((n_kinds, len(NAMES))) < 0.4
    positive = touched & (rng.random(touched.shape) < 0.6)
    hidden = positive & (rng.random(touched.shape) < 0.3)
    eligible, background = rng.random((2, n_kinds)) < 0.5

    def entries(mask: np.ndarray) -> np.ndarray:
        return np.argwhere(mask[kinds].T)[:, ::-1]  # by label and then token, as labels of a video are

    return VideoLabels(
        n_units=len(kinds),
        positive=entries(positive),
        touched=entries(touched),
        hidden=entries(hidden),
        eligible=eligible[kinds],
        background=background[kinds],
    )


def parts_of(labels: UnitLabels) -> list[np.ndarray]:
    """Dense copies of everything that labels say."""
    matrices = [matrix.toarray() for matrix in (labels.positive, labels.touched, labels.hidden)]
    masks = [mask for label in range(len(labels.names)) for mask in labels.masks(label)]
    return [*matrices, labels.eligible, labels.background, *masks]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 5))
def test_labels_by_region_are_those_of_each_token(seed: int, n_tokens: int, n_kinds: int) -> None:
    rng = np.random.default_rng(seed)
    videos: list[dict[Space, VideoLabels]] = []
    for _ in range(2):
        kinds = rng.integers(0, n_kinds, n_tokens)
        videos.append({space: random_video(rng, kinds) for space in (OBJECTS, PARTS)})
    joined = [join_regions(video) for video in videos]
    sizes = [int(region.max()) + 1 for region, _ in joined]
    assert max(sizes) <= n_kinds
    region = np.concatenate([joined[0][0], sizes[0] + joined[1][0]]).astype(np.int32)
    assert np.unique(region).tolist() == list(range(sum(sizes))), "no region is empty"
    units = rng.permutation(2 * n_tokens)[: n_tokens + 1]
    for space in (OBJECTS, PARTS):
        plain = stack([video[space] for video in videos], NAMES)
        by_region = RegionLabels(stack([found[space] for _, found in joined], NAMES), region)
        assert by_region.names == NAMES
        for own, of in ((by_region, plain), (by_region.select(units, [2, 0]), plain.select(units, [2, 0]))):
            for ours, theirs in zip(parts_of(own), parts_of(of), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_regions_are_what_no_space_tells_apart() -> None:
    # Tokens 0 and 2 are alike in the first space, 0 and 1 in the second, 3 and 4 in both.
    nothing = np.empty((0, 2), dtype=np.int64)
    alike = np.ones(5, dtype=bool)

    def video(*positive: int) -> VideoLabels:
        entries = np.array([[token, 0] for token in positive], dtype=np.int64).reshape(-1, 2)
        return VideoLabels(
            n_units=5, positive=entries, touched=entries, hidden=nothing, eligible=alike, background=~alike
        )

    region, labels = join_regions({OBJECTS: video(0, 2), PARTS: video(2, 3, 4)})
    assert region.tolist() == [0, 1, 2, 3, 3]
    assert labels[OBJECTS].n_units == 4
    assert labels[OBJECTS].positive.tolist() == [[0, 0], [2, 0]]
    assert labels[PARTS].positive.tolist() == [[2, 0], [3, 0]]
