"""Counting questions, non-counting questions, their prompts, and what can be scored without looking at the video.

A counting question carries one of the counting tags and three numeric options; every question without such a tag is a
non-counting question. Each item is asked in all three cyclic orders of its options, so that a preference for a letter
cancels. Nothing here runs a model.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ask.subjects import subject_of
from collect.data.counting import option_number
from collect.data.perception_test import Dataset, Question
from collect.errors import UserError

logger = logging.getLogger(__name__)
T = TypeVar("T")

LETTERS = ("A", "B", "C")
N_OPTIONS = len(LETTERS)
CHANCE = 1 / N_OPTIONS
INSTRUCTION = "Answer with the option's letter from the given choices directly."


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question about one video, with three options."""

    video_id: str
    question_id: int
    question: str
    options: tuple[str, ...]
    answer_id: int
    """Position of the correct option, from 0."""
    kind: str
    """The counting tag, or the first tag of a non-counting question."""
    values: tuple[float, ...] | None
    """Numbers that the options name (`collect.data.counting`); None for a non-counting question."""
    held_out: bool

    @property
    def item_id(self) -> str:
        """`video_id/question_id`, the key of every table."""
        return f"{self.video_id}/{self.question_id}"

    @property
    def counting(self) -> bool:
        """Whether this is a counting question."""
        return self.values is not None

    @property
    def subject(self) -> str | None:
        """What it counts; None for a non-counting question."""
        return subject_of(self.question, (self.kind,)).name if self.counting else None

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompt of each cyclic order."""
        return tuple(prompt(self.question, rotate(self.options, shift)) for shift in range(N_OPTIONS))

    @property
    def correct_letters(self) -> tuple[int, ...]:
        """Position of the letter of the correct option in each cyclic order."""
        return tuple((self.answer_id - shift) % N_OPTIONS for shift in range(N_OPTIONS))

    @property
    def letter_values(self) -> tuple[tuple[float, ...], ...] | None:
        """Numbers that the letters A, B, C stand for in each cyclic order; None for a non-counting question."""
        return None if self.values is None else tuple(rotate(self.values, shift) for shift in range(N_OPTIONS))

    @property
    def hash(self) -> str:
        """SHA-256 over everything that the model is asked and scored on."""
        content = json.dumps([self.video_id, self.question_id, self.prompts, self.correct_letters, self.values])
        return hashlib.sha256(content.encode()).hexdigest()


def rotate(options: Sequence[T], shift: int) -> tuple[T, ...]:
    """Return the options in the cyclic order that starts with number `shift`."""
    return (*options[shift:], *options[:shift])


def prompt(question: str, options: Sequence[str]) -> str:
    """Word a multiple-choice question as lmms-eval does for Perception Test."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True)]
    return "\n".join([question, *lines, INSTRUCTION])


def items_of(
    dataset: Dataset,
    counting_tags: Collection[str],
    held_out: Collection[str],
    videos: Collection[str] | None = None,
    otherwise: str = "name other --tasks",
) -> tuple[Item, ...]:
    """Turn the questions of a dataset into items, ordered by video and question id.

    Left out, and counted in the log: questions without exactly three different options, questions whose answer is
    withheld (the benchmark's test split), and questions with a counting tag whose options are not numbers (such as
    yes/no), which are neither counting questions nor suitable as controls.

    Args:
        dataset: the annotated videos.
        counting_tags: tags that make a question a counting one.
        held_out: ids of the held-out videos.
        videos: ids of the videos to consider; all if None.
        otherwise: what the user of the stage that asks can do where there is none, besides adding some.

    Raises:
        UserError: no counting question is left.
    """
    items: list[Item] = []
    left_out: Counter[str] = Counter()
    for video in dataset.videos:
        if videos is not None and video.video_id not in videos:
            continue
        for question in sorted(video.questions, key=lambda question: question.id):
            item = _item(video.video_id, question, counting_tags, video.video_id in held_out)
            if isinstance(item, Item):
                items.append(item)
            else:
                left_out[item] += 1
    for reason, count in sorted(left_out.items()):
        logger.info("%d questions are left out: %s", count, reason)
    if not any(item.counting for item in items):
        raise UserError(
            f"{dataset.folder} has no counting question about the videos of this run "
            f"(three numeric options and one of the tags {', '.join(sorted(counting_tags))}): "
            f"add its mc_question annotations, or {otherwise}."
        )
    return tuple(sorted(items, key=lambda item: (item.video_id, item.question_id)))


def _item(video_id: str, question: Question, counting_tags: Collection[str], held_out: bool) -> Item | str:
    """Return the item, or the reason why the question cannot be one."""
    options = tuple(question.options)
    if len(options) != N_OPTIONS or len(set(options)) != N_OPTIONS:
        return f"they do not have {N_OPTIONS} different options"
    if question.answer_id not in range(N_OPTIONS):
        return "their answers are withheld"
    counting_tag = next((tag for tag in question.tag if tag in counting_tags), None)
    values = [option_number(option) for option in options]
    numbers = tuple(value for value in values if value is not None)
    if counting_tag is not None and len(set(numbers)) != N_OPTIONS:
        return "they have a counting tag, but their options are not three numbers"
    kind = counting_tag or (question.tag[0] if question.tag else question.area or "untagged")
    return Item(
        video_id=video_id,
        question_id=question.id,
        question=question.question,
        options=options,
        answer_id=question.answer_id,
        kind=kind,
        values=numbers if counting_tag is not None else None,
        held_out=held_out,
    )


def manifest_hash(items: Iterable[Item]) -> str:
    """Return the SHA-256 of the items in their order: the fixed list that effects refer to."""
    return hashlib.sha256("".join(item.hash for item in items).encode()).hexdigest()


def sample_items(items: Sequence[Item], n: int, seed: int) -> tuple[Item, ...]:
    """Draw at most `n` items, evenly over the kinds of question, and return them in their original order.

    Kinds take turns, and each gives a random one of its remaining items. So a rare kind is drawn completely before a
    common one takes the rest; likewise the subjects of a counting kind. The draw depends on the seed and the items
    only.
    """
    generator = random.Random(seed)
    queues: dict[str, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda item: item.item_id):
        queues[item.kind].append(item)
    for kind in sorted(queues):
        generator.shuffle(queues[kind])
        queues[kind] = _in_turns(queues[kind])[::-1]
    drawn: set[str] = set()
    while len(drawn) < min(n, len(items)):
        for kind in sorted(queues):
            if queues[kind] and len(drawn) < n:
                drawn.add(queues[kind].pop().item_id)
    return tuple(item for item in items if item.item_id in drawn)


def _in_turns(items: Sequence[Item]) -> list[Item]:
    """The items with their subjects taking turns; those of one subject keep their order."""
    turn: Counter[str | None] = Counter()
    numbered: list[tuple[int, str, int, Item]] = []
    for place, item in enumerate(items):
        numbered.append((turn[item.subject], item.subject or "", place, item))
        turn[item.subject] += 1
    return [item for *_, item in sorted(numbered, key=lambda each: each[:3])]
