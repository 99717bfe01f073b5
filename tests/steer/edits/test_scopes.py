"""Scopes: which tokens of a video they hold, and that edits stay inside them."""

import dataclasses

import numpy as np
import pytest
import torch

from collect.data.perception_test import Track
from collect.errors import UserError
from collect.tokens.grid import TokenGrid
from steer.codes import Scene, VideoCodes
from steer.edits.operations import Operation, Scope
from steer.edits.placed import placed_logits, text_tokens
from steer.edits.scopes import frames_that_fire, require_scopes, runs_of, scoped_tokens
from steer.effects import Around, edit, effects
from tests.steer.mechanism.toy_bench import GRID, bench_of, segment, target, video_of

WIDE = TokenGrid.uniform(
    n_rows=1, n_cols=2, spans_s=np.array([[0.0, 1.0], [1.0, 2.0]]), frame_ids=np.arange(2, dtype=np.int64)
)
"""Two steps of a left and a right token."""


def track(label: str, *boxes: tuple[float, float, float, float]) -> Track:
    return Track(
        id=0,
        label=label,
        is_occluder=False,
        is_masked=np.zeros(len(boxes), dtype=bool),
        boxes=np.array(boxes),
        frame_ids=np.arange(len(boxes), dtype=np.int64),
        times_s=np.arange(len(boxes), dtype=np.float64),
    )


def codes_of(*values: float) -> VideoCodes:
    """Latent 0 on each token."""
    token = torch.tensor([at for at, value in enumerate(values) if value])
    return VideoCodes(
        token=token,
        latent=torch.zeros_like(token),
        value=torch.tensor([value for value in values if value]),
        n_tokens=len(values),
    )


def marked(scope: Scope, scene: Scene, codes: VideoCodes) -> list[int]:
    return scoped_tokens(scope, scene, codes, (0,)).nonzero()[:, 0].tolist()


def test_runs_are_first_and_last_steps() -> None:
    assert runs_of(np.array([True, False, True, True])) == [(0, 0), (2, 3)]
    assert runs_of(np.zeros(3, dtype=bool)) == []


def test_each_scope_holds_its_tokens() -> None:
    scene = Scene(video=video_of("v", [segment(1, 2), segment(3, label="other")]), grid=GRID)
    codes = codes_of(0.0, 2.0, 0.0, 1.0)
    assert marked(Scope(), scene, codes) == [0, 1, 2, 3]
    assert marked(Scope(kind="action", label="The lamp flashing"), scene, codes) == [1, 2]
    assert marked(Scope(kind="action", label="unknown"), scene, codes) == []
    assert marked(Scope(kind="event"), scene, codes) == [1]  # the first run only
    assert marked(Scope(kind="frames", first=2, last=9), scene, codes) == [2, 3]
    assert frames_that_fire(codes, (0,), 4).tolist() == [False, True, False, True]
    assert frames_that_fire(codes, (1,), 4).tolist() == [False] * 4


def test_a_track_holds_the_tokens_that_its_boxes_cover() -> None:
    boxes = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))  # left, then right
    video = dataclasses.replace(video_of("v"), tracks=(track("red cup", *boxes),))
    scene = Scene(video=video, grid=WIDE)
    codes = codes_of(1.0, 1.0, 1.0, 1.0)
    for name in ("red cup", "The cup", "red"):
        assert marked(Scope(kind="track", label=name), scene, codes) == [0, 3]
    assert marked(Scope(kind="track", label="ball"), scene, codes) == []


BENCH = bench_of({"v": (1.0, 2.0, 0.0, 3.0)}, {"v": 3})


def around() -> Around:
    case, _ = BENCH.cases["v"]
    return Around(case=case, scene=BENCH.cases.scene("v"))


def test_an_edit_stays_within_its_scope_and_is_that_of_all_tokens_there() -> None:
    _, codes = BENCH.cases["v"]
    whole = edit(BENCH.editor, codes, target(0), Operation.parse("ablate")).change
    part = edit(BENCH.editor, codes, target(0), Operation.parse("ablate@frames:0-1"), around()).change
    assert torch.equal(part[:2], whole[:2])
    assert torch.count_nonzero(part[2:]) == 0


@pytest.mark.parametrize(("scope", "n"), [("question", 4), ("last", 1)])
def test_edits_of_the_text_stand_on_the_tokens_of_each_question(scope: str, n: int) -> None:
    case, codes = BENCH.cases["v"]
    made = edit(BENCH.editor, codes, target(0), Operation.parse(f"add:0.5@{scope}"), around())
    assert made.tokens is not None
    assert made.tokens.sum(dim=1).tolist() == [3 * n]  # three orders of one item
    wanted = 0.5 * BENCH.editor.reference.median_norm
    assert made.change.norm(dim=1).tolist() == pytest.approx([wanted] * 3 * n)
    chosen = text_tokens(case.sequences, Scope(kind="question" if scope == "question" else "last"))
    assert torch.equal(made.tokens, chosen)


def test_an_edit_of_the_last_token_moves_the_answer_and_rows_keep_the_order_of_operations() -> None:
    case, codes = BENCH.cases["v"]
    operations = [Operation.parse(text) for text in ("add:0.5@last", "ablate", "ablate@event", "ablate@action:none")]
    rows = effects(BENCH.editor, case, codes, target(0), operations, around())
    found = {row["operation"]: row["delta_expected_count"] for row in rows}
    assert set(found) == {"add:0.5@last", "ablate", "ablate@event"}  # an edit of nothing has no row
    assert found["add:0.5@last"] > 0.1 > 0 > found["ablate@event"] > found["ablate"]


def test_an_edit_of_nothing_at_text_tokens_changes_no_bit() -> None:
    case, _ = BENCH.cases["v"]
    tokens = text_tokens(case.sequences, Scope(kind="question"))
    nothing = torch.zeros(int(tokens.sum()), 8)
    logits, _ = placed_logits(BENCH.editor.model, case, tokens, [nothing], 1)
    assert torch.equal(logits[0], case.logits)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ablate@track:unicorn", r"has tracks with that label: choose from cup, red, red cup\."),
        ("scale:2@action:flying", r"has action segments with that label: choose from lamp flashing\."),
        ("ablate@frames:2-9", r"the clips have 4 time steps, numbered from 0: give FIRST-LAST of at most 3\."),
        ("ablate@frames:50-60", "the clips have 4 time steps"),
    ],
)
def test_a_scope_that_no_video_has_is_refused(text: str, message: str) -> None:
    boxes = ((0.0, 0.0, 0.5, 1.0),) * 4
    video = dataclasses.replace(video_of("v", [segment(1, 2)]), tracks=(track("red cup", *boxes),))
    known = ("ablate", "ablate@track:The cup", "ablate@action:the lamp flashing", "swap@event", "ablate@frames:0-3")
    require_scopes([Operation.parse(known_text) for known_text in known], [video_of("w"), video], 4)
    with pytest.raises(UserError, match=message):
        require_scopes([Operation.parse(text)], [video_of("w"), video], 4)


def test_without_annotations_no_label_can_be_chosen() -> None:
    with pytest.raises(UserError, match=r"none of them has any tracks"):
        require_scopes([Operation.parse("ablate@track:cup")], [video_of("w")], 4)
