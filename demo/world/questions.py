"""Multiple-choice questions about a scene: the kinds, their wording and tags, and the right answers.

Counting kinds carry Perception Test's tags "object counting", "action counting" and "event counting"; the others are
controls that ask for colour, place, order or action.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.vlm.vocabulary import ACTIONS, COLOURS, PLACES, PLURALS
from demo.world.motion import final_ball_place
from demo.world.scene import Count, Scene

OCCLUSION_GAME = (
    "The person uses multiple similar objects to play an occlusion game. How many such objects does the person use?"
)

# kind -> (tag, area, reasoning); the tag names are the benchmark's.
KINDS: dict[str, tuple[str, str, str]] = {
    "toys of a colour": ("object counting", "memory", "descriptive"),
    "toys of a shape": ("object counting", "memory", "descriptive"),
    "cups": ("object counting", "semantics", "descriptive"),
    "actions": ("action counting", "memory", "descriptive"),
    "swaps": ("action counting", "memory", "descriptive"),
    "lamp": ("event counting", "memory", "descriptive"),
    "hidden ball": ("object permanence", "physics", "explanatory"),
    "lamp colour": ("colour recognition", "semantics", "descriptive"),
    "mug place": ("spatial relations", "semantics", "descriptive"),
    "last toy": ("sequencing", "memory", "descriptive"),
    "which action": ("action recognition", "semantics", "descriptive"),
}
NONCOUNTING_KINDS = ("lamp colour", "mug place", "last toy", "which action")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question: the right answer and two wrong ones, in the order in which they would naturally be listed."""

    kind: str
    question: str
    answer: str
    wrong: tuple[str, str]

    def options(self, answer_id: int, turned: bool) -> tuple[str, str, str]:
        """The three options with the right one at `answer_id`; `turned` swaps the two wrong ones."""
        rest = list(self.wrong[::-1] if turned else self.wrong)
        rest.insert(answer_id, self.answer)
        return rest[0], rest[1], rest[2]


def _count_item(kind: str, question: str, count: Count) -> Item:
    offered = [count.first_option + k for k in range(3)]
    a, b = (str(n) for n in offered if n != count.value)
    return Item(kind=kind, question=question, answer=str(count.value), wrong=(a, b))


def _choice_item(kind: str, question: str, answer: str, others: list[str], rng: np.random.Generator) -> Item:
    a, b = (others[i] for i in rng.permutation(len(others))[:2])
    return Item(kind=kind, question=question, answer=answer, wrong=(a, b))


def last_toy_colour(scene: Scene) -> str | None:
    """Colour of the toy that appears last, or None if two come too close together to be distinguished."""
    firsts = sorted((toy.visible[0][0], toy.colour) for toy in scene.toys)
    if firsts[-1][0] == 0.0 or firsts[-1][0] - firsts[-2][0] < 1.1 * scene.interval_s:
        return None
    return firsts[-1][1]


def items(scene: Scene) -> list[Item]:
    """Every question that applies to the scene; the choice of wrong options is fixed by the scene's seed and index."""
    rng = np.random.default_rng([scene.seed, scene.index, 7])
    counts = scene.counts
    if scene.kind == "cups":
        out = [
            _count_item("cups", OCCLUSION_GAME, counts["cups"]),
            _count_item("swaps", "How many times does the person swap two cups in the video?", counts["swaps"]),
        ]
        if scene.n_cups == 3:
            place = PLACES[final_ball_place(scene)]
            others = [p for p in PLACES if p != place]
            out.append(
                _choice_item("hidden ball", "Where is the ball hidden at the end of the video?", place, others, rng)
            )
        return out
    verb = scene.asked_action
    out = [
        _count_item("toys of a colour", f"How many {scene.asked_colour} toys appear in the video?", counts["colour"]),
        _count_item("toys of a shape", f"How many {PLURALS[scene.asked_shape]} appear in the video?", counts["shape"]),
        _count_item("actions", f"How many times does the person {verb} something in the video?", counts["action"]),
        _count_item("lamp", "How many times does the lamp turn on in the video?", counts["lamp"]),
        _choice_item(
            "lamp colour",
            "What colour is the lamp?",
            scene.lamp_colour,
            [c for c in COLOURS if c != scene.lamp_colour],
            rng,
        ),
        _choice_item(
            "mug place", "Where is the mug?", scene.mug_place, [p for p in PLACES if p != scene.mug_place], rng
        ),
    ]
    last = last_toy_colour(scene)
    if last is not None:
        seen = sorted({toy.colour for toy in scene.toys} - {last})
        unseen = [c for c in COLOURS if c != last and c not in seen]
        pool = (list(rng.permutation(seen)) + list(rng.permutation(unseen)))[:2]
        out.append(
            _choice_item("last toy", "What colour is the toy that appears last?", last, [str(c) for c in pool], rng)
        )
    done = {action.kind for action in scene.actions}
    if len(done) == 1:
        kind = next(iter(done))
        out.append(
            _choice_item(
                "which action",
                "Which action does the person do in the video?",
                ACTIONS[kind],
                [word for k, word in ACTIONS.items() if k != kind],
                rng,
            )
        )
    return out
