from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from collect.data.annotation import ANSWER_WITHHELD
from collect.data.perception_test import Question, Video
from features.labels.labelling import QUESTIONS, label_video, names_of
from tests.features.labels.annotated import make_grid, make_video, negatives, units

HOW_MANY, COLOUR = "How many cups?", "What colour is the lamp?"


def ask(question: str, options: Sequence[str], answer_id: int, id: int = 0) -> Question:
    return Question(
        id=id,
        video_id="video",
        question=question,
        options=tuple(options),
        answer_id=answer_id,
        area="memory",
        reasoning="descriptive",
        tag=(),
    )


def asked(*questions: Question) -> Video:
    return replace(make_video(), questions=questions)


def test_names_of_questions_and_answers() -> None:
    video = asked(ask("How  many cups?", ["1", "2"], 1), ask(COLOUR, ["red", "blue"], ANSWER_WITHHELD, 1))
    assert names_of(video)[QUESTIONS] == {
        'asked "How many cups?"',
        'asked "What colour is the lamp?"',
        '"2" to "How many cups?"',
    }


def test_a_video_is_positive_for_its_answer_negative_for_others_and_neither_where_it_was_not_asked() -> None:
    names = (
        f'"1" to "{HOW_MANY}"',
        f'"2" to "{HOW_MANY}"',
        f'"red" to "{COLOUR}"',
        f'asked "{COLOUR}"',
        f'asked "{HOW_MANY}"',
    )
    found = label_video(asked(ask(HOW_MANY, ["1", "2"], 1)), make_grid(), {QUESTIONS: names})[QUESTIONS]
    assert found.n_units == 1
    assert [units(found.positive, label) for label in range(5)] == [[], [0], [], [], [0]]
    assert [negatives(found, label) for label in range(5)] == [[0], [], [], [0], []]


def test_a_question_that_ends_like_another_is_another() -> None:
    longer = 'Is "yes" to "How many cups?'
    names = (f'"1" to "{HOW_MANY}"', f'"no" to "{longer}"')
    found = label_video(asked(ask(longer, ["yes", "no"], 0)), make_grid(), {QUESTIONS: names})[QUESTIONS]
    assert [negatives(found, label) for label in range(2)] == [[], [0]]


def test_two_answers_to_one_text_are_both_right() -> None:
    video = asked(ask(COLOUR, ["red", "blue"], 0), ask(COLOUR, ["red", "blue"], 1, id=1))
    names = (f'"blue" to "{COLOUR}"', f'"red" to "{COLOUR}"')
    found = label_video(video, make_grid(), {QUESTIONS: names})[QUESTIONS]
    assert [units(found.positive, label) for label in range(2)] == [[0], [0]]
