"""Operations and scopes: every form is read once, and written back as it was."""

import pytest

from collect.errors import UserError
from steer.edits.operations import EVERYWHERE, Operation, Scope


@pytest.mark.parametrize(
    ("text", "kind", "strength", "scope"),
    [
        ("ablate", "ablate", 0.0, EVERYWHERE),
        ("swap", "swap", 0.0, EVERYWHERE),
        ("scale:2@event", "scale", 2.0, Scope(kind="event")),
        ("clamp:p95@track:red cup", "clamp", 0.95, Scope(kind="track", label="red cup")),
        ("add:-0.25@question", "add", -0.25, Scope(kind="question")),
        ("ablate@last", "ablate", 0.0, Scope(kind="last")),
        ("swap@action:lifting something", "swap", 0.0, Scope(kind="action", label="lifting something")),
        ("ablate@frames:2-5", "ablate", 0.0, Scope(kind="frames", first=2, last=5)),
    ],
)
def test_every_form_is_read_and_written(text: str, kind: str, strength: float, scope: Scope) -> None:
    parsed = Operation.parse(text)
    assert parsed == Operation(kind=kind, strength=strength, scope=scope)
    assert str(parsed) == text


def test_all_visual_tokens_need_no_scope() -> None:
    assert str(Operation.parse("ablate@visual")) == "ablate"


@pytest.mark.parametrize(
    "text",
    [
        *("ablate@", "ablate@track", "ablate@track: ", "ablate@frames:3", "ablate@frames:5-2", "ablate@frames:a-b"),
        *("ablate@event:2", "ablate@nowhere", "swap:2", "swap@question", "swap@last", "ablate:1"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--operations"):
        Operation.parse(text)


def test_a_scope_tells_magnitudes_apart_and_operations_of_one_scope_share_them() -> None:
    names = {
        text: Operation.parse(text).magnitude for text in ("ablate", "scale:2", "ablate@last", "scale:2@last", "swap")
    }
    assert names["ablate"] == names["scale:2"] != names["ablate@last"] == names["scale:2@last"]
    assert len(set(names.values())) == 3


def test_signs_say_whether_a_latent_gets_less_or_more() -> None:
    signs = {text: Operation.parse(text).sign for text in ("ablate", "scale:0.5", "scale:2", "add:0.1", "add:-0.1")}
    assert list(signs.values()) == [-1, -1, 1, 1, -1]
    assert Operation.parse("clamp:p50").sign == Operation.parse("swap").sign == 0
