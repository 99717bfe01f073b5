from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from demo.world.motion import final_ball_place, placements
from demo.world.scene import SAMPLES
from demo.world.script import draw_count, draw_intervals, draw_scene

SCENES = [draw_scene(3, i) for i in range(300)]


def test_a_scene_is_a_function_of_seed_and_index() -> None:
    assert draw_scene(3, 7) == draw_scene(3, 7)
    assert draw_scene(3, 7) != draw_scene(4, 7)


def test_counts_are_uniform_over_triples_and_answers() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_count(rng, 4) for _ in range(18_000)]
    pairs = Counter((count.first_option, count.value - count.first_option) for count in drawn)
    # three triples (0,1,2), (1,2,3), (2,3,4) with three answers each: 18000 / 9 = 2000 of every pair, sd 42
    assert set(pairs) == {(first, place) for first in range(3) for place in range(3)}
    assert all(1790 < n < 2210 for n in pairs.values())


def test_intervals_keep_their_lengths_and_gaps() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        spans = draw_intervals(rng, 3, 0.5, 7.0, 1.0, 1.3, 0.8)
        assert spans[0][0] >= 0.5
        assert spans[-1][1] <= 7.0 + 1e-9
        assert all(1.0 <= b - a <= 1.3 for a, b in spans)
        assert all(later[0] - earlier[1] >= 0.8 - 1e-9 for earlier, later in pairwise(spans))


def test_every_stay_action_and_light_is_seen_in_a_sampled_frame() -> None:
    for scene in SCENES:
        times = scene.sample_times()
        assert len(times) == SAMPLES
        spans = [(a.start, a.end) for a in scene.actions] + list(scene.lamp_on)
        spans += [(s.start, s.end) for s in scene.swaps] + [stay for toy in scene.toys for stay in toy.visible]
        for start, end in spans:
            assert ((times >= start) & (times < end)).any(), (scene.index, start, end)


def test_two_lights_are_separated_by_a_dark_sampled_frame() -> None:
    for scene in SCENES:
        times = scene.sample_times()
        for (_, end), (start, _) in pairwise(scene.lamp_on):
            assert ((times >= end) & (times < start)).any()


def test_the_asked_counts_are_the_scene_s() -> None:
    for scene in SCENES:
        if scene.kind == "tabletop":
            assert scene.counts["colour"].value == sum(t.colour == scene.asked_colour for t in scene.toys)
            assert scene.counts["shape"].value == sum(t.shape == scene.asked_shape for t in scene.toys)
            assert scene.counts["action"].value == sum(a.kind == scene.asked_action for a in scene.actions)
            assert scene.counts["lamp"].value == len(scene.lamp_on)
        else:
            assert scene.counts["cups"].value == scene.n_cups
            assert scene.counts["swaps"].value == len(scene.swaps)


def test_a_count_cannot_be_told_from_the_number_of_toys() -> None:
    scenes = [s for s in (draw_scene(9, i) for i in range(1500)) if s.kind == "tabletop"]
    counts = np.array([s.counts["colour"].value for s in scenes])
    totals = np.array([len(s.toys) for s in scenes])
    # independent by construction: |r| stays below 4 standard errors, 4 / sqrt(1050) = 0.12
    assert abs(np.corrcoef(counts, totals)[0, 1]) < 0.12


def test_toys_never_stand_on_each_other_s_place() -> None:
    for scene in SCENES:
        homes = [(t.x, t.y) for t in scene.toys]
        for i, a in enumerate(homes):
            for b in homes[i + 1 :]:
                assert max(abs(a[0] - b[0]), abs(a[1] - b[1])) > 0.19


@pytest.mark.parametrize("scene", [s for s in SCENES if s.kind == "cups"][:25], ids=lambda s: s.video_id)
def test_the_ball_ends_under_the_cup_that_the_swaps_carry_it_to(scene) -> None:
    at_end = {p.track: p for p in placements(scene, scene.clip_s - 1e-6)}
    ball_x = at_end[103].x
    cups = sorted(p.x for track, p in at_end.items() if track < 100)
    assert int(np.argmin([abs(x - ball_x) for x in cups])) == final_ball_place(scene)


def test_the_ball_is_hidden_until_the_cut_and_revealed_after_it() -> None:
    scene = next(s for s in SCENES if s.kind == "cups")
    ball = lambda t: next(p for p in placements(scene, t) if p.track == 103)  # noqa: E731
    assert ball(scene.clip_s - 0.05).hidden
    assert not ball(scene.n_frames / 30 - 0.05).hidden
    assert not ball(0.0).hidden


def test_boxes_stay_inside_the_frame() -> None:
    for scene in SCENES[:40]:
        for t in scene.sample_times():
            for p in placements(scene, float(t)):
                x1, y1, x2, y2 = p.box
                assert 0 <= x1 < x2 <= 1, p
                assert 0 <= y1 < y2 <= 1, p
