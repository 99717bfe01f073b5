from __future__ import annotations

from dataclasses import replace

import numpy as np

from collect.tokens.grid import TokenGrid
from features.labels.labelling import SCENES, label_video, names_of
from features.labels.scenes import PlaceGrid
from tests.features.conftest import plant_videos, records_of
from tests.features.labels.annotated import LEFT, RIGHT, make_grid, make_segment, make_track, make_video, units


def test_scenes_by_hand() -> None:
    tracks = [make_track(0, "red cup", [LEFT] * 2), make_track(1, "ball", [RIGHT] * 2, is_masked=[False, True])]
    video = replace(make_video(tracks, [make_segment("Lifting", 0.0, 0.5)]), is_cup_game=True)
    names = tuple(sorted(names_of(video)[SCENES]))
    assert names == ("2 or more objects in view", "ball in view", "cup game", "cup in view", "video with lifting")
    found = label_video(video, make_grid(), {SCENES: names})[SCENES]
    assert [units(found.positive, label) for label in range(5)] == [[0], [0], [0, 1], [0, 1], [0, 1]]
    assert found.eligible.all()


def test_places_and_times_of_a_grid() -> None:
    places = PlaceGrid(records_of(plant_videos(2)))
    assert places.shape == (4, 4, 4)
    cells = places.cells(records_of(plant_videos(1))[0].grid)
    np.testing.assert_array_equal(cells, np.arange(64))
    by_place, by_time = places.labels()
    assert np.flatnonzero(by_place["row 2 of 4"]).tolist() == [16 * t + k for t in range(4) for k in (4, 5, 6, 7)]
    assert np.flatnonzero(by_time["time step 4 of 4"]).tolist() == list(range(48, 64))
    assert by_place["border of the frame"].sum() == 4 * 12
    assert by_place["corner of the frame"].sum() == 4 * 4


def test_every_place_and_time_is_in_one_row_one_column_and_one_step() -> None:
    by_place, by_time = PlaceGrid(records_of(plant_videos(1))).labels()
    for names, prefix in ((by_place, "row "), (by_place, "column "), (by_time, "time step ")):
        own = [cells for name, cells in names.items() if name.startswith(prefix)]
        assert (np.sum(own, axis=0) == 1).all()


def test_another_grid_is_counted_in_the_common_one() -> None:
    places = PlaceGrid(records_of(plant_videos(2)))
    spans = np.array([[0.0, 0.1], [1.0, 1.1]])
    grid = TokenGrid.uniform(n_rows=8, n_cols=2, spans_s=spans, frame_ids=np.array([0, 10]))
    t, row, col = np.unravel_index(places.cells(grid).reshape(2, 8, 2), places.shape)
    # Two steps fall into the second and the fourth quarter of the time, two columns likewise; two rows share one.
    assert (t[:, 0, 0].tolist(), col[0, 0].tolist()) == ([1, 3], [1, 3])
    assert row[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
