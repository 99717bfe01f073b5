from __future__ import annotations

import numpy as np
import pytest

from features.labels.place_labels import PlaceLabels


@pytest.fixture
def labels() -> PlaceLabels:
    in_cells = np.array([[True, False], [True, True], [False, False]])
    return PlaceLabels(("a", "b"), in_cells, np.array([2, 1, 0, 1], dtype=np.int32))


def test_tokens_have_the_labels_of_their_cells(labels: PlaceLabels) -> None:
    expected = np.array([[0, 0], [1, 1], [1, 0], [1, 1]], dtype=bool)
    np.testing.assert_array_equal(labels.positive.toarray(), expected)
    np.testing.assert_array_equal(labels.touched.toarray(), expected)
    assert labels.positive.dtype == np.bool_
    assert labels.hidden.shape == (4, 2)
    assert not labels.hidden.nnz
    assert labels.eligible.all()
    assert not labels.background.any()
    for label in range(2):
        positive, negative = labels.masks(label)
        np.testing.assert_array_equal(positive, expected[:, label])
        np.testing.assert_array_equal(negative, ~expected[:, label])


def test_some_tokens_and_labels(labels: PlaceLabels) -> None:
    some = labels.select(np.array([3, 0]), [1])
    assert some.names == ("b",)
    np.testing.assert_array_equal(some.positive.toarray(), [[True], [False]])
    assert labels.select(np.array([1])).names == ("a", "b")
