"""Items: which questions count, how they are worded and permuted, and what can be scored without the video."""

from pathlib import Path

import pytest

from ask.baselines import answer_frequency, question_only_answers, question_only_score
from ask.questions import (
    CHANCE,
    Item,
    items_of,
    manifest_hash,
    prompt,
    sample_items,
)
from collect.data.counting import COUNTING_TAGS
from collect.data.perception_test import Dataset, Question, Video
from collect.errors import UserError
from tests.steer.toy import counting_item, noncounting_item


def _question(
    id_: int, options: tuple[str, ...], tag: tuple[str, ...], answer_id: int = 0, text: str = "Q?"
) -> Question:
    return Question(
        id=id_, video_id="v", question=text, options=options, answer_id=answer_id, area="memory", reasoning="r", tag=tag
    )


def _dataset(*questions: Question) -> Dataset:
    video = Video(
        video_id="v", path=None, split="train", frame_rate=30.0, n_frames=30, height=8, width=8, questions=questions
    )
    return Dataset(folder=Path("data"), videos=(video,))


def test_prompt_is_lmms_evals() -> None:
    assert prompt("How many?", ("1", "2", "3")) == (
        "How many?\nA. 1\nB. 2\nC. 3\nAnswer with the option's letter from the given choices directly."
    )


def test_every_option_stands_once_behind_every_letter_and_stays_correct() -> None:
    item = counting_item(options=("5", "7", "9"), answer_id=1)
    shown = [[line[3:] for line in text.splitlines()[1:4]] for text in item.prompts]
    assert shown == [["5", "7", "9"], ["7", "9", "5"], ["9", "5", "7"]]
    assert [options[letter] for options, letter in zip(shown, item.correct_letters, strict=True)] == ["7", "7", "7"]
    assert item.letter_values == ((5.0, 7.0, 9.0), (7.0, 9.0, 5.0), (9.0, 5.0, 7.0))


def test_only_numeric_questions_with_a_counting_tag_count_and_yes_no_ones_are_no_controls() -> None:
    dataset = _dataset(
        _question(1, ("1", "2", "3"), ("motion", "object counting")),
        _question(2, ("yes", "no", "unsure"), ("object counting",)),
        _question(3, ("red", "green", "blue"), ("colour",)),
        _question(4, ("1", "2", "3"), ("time",)),  # numeric, but not a counting question
        _question(5, ("red", "red", "blue"), ("colour",)),  # the same option twice
        _question(6, ("1", "2", "3"), ("event counting",), answer_id=-1),  # answer withheld
    )
    items = items_of(dataset, COUNTING_TAGS, held_out=set())
    assert [(item.question_id, item.kind, item.counting) for item in items] == [
        (1, "object counting", True),
        (3, "colour", False),
        (4, "time", False),
    ]


def test_no_counting_question_is_the_users_problem() -> None:
    with pytest.raises(UserError, match=r"no counting question.*mc_question"):
        items_of(_dataset(_question(3, ("red", "green", "blue"), ("colour",))), COUNTING_TAGS, held_out=set())


def test_the_manifest_changes_with_the_answer_and_not_with_the_split() -> None:
    one = counting_item(answer_id=2, held_out=True)
    assert manifest_hash([one]) == manifest_hash([counting_item(answer_id=2, held_out=False)])
    assert manifest_hash([one]) != manifest_hash([counting_item(answer_id=1)])


def test_a_sample_is_even_over_kinds_whatever_the_order() -> None:
    items = [counting_item(f"v{n}") for n in range(20)] + [noncounting_item(f"v{n}") for n in range(2)]
    drawn = sample_items(items, 6, seed=0)
    # Turns: colour, counting, colour, counting, then counting alone.
    assert sum(item.counting for item in drawn) == 4
    assert sum(not item.counting for item in drawn) == 2
    assert {item.item_id for item in sample_items(items[::-1], 6, seed=0)} == {item.item_id for item in drawn}
    assert {item.item_id for item in sample_items(items, 6, seed=1)} != {item.item_id for item in drawn}
    assert sample_items(items, 100, seed=0) == tuple(items)


def _answered(
    answer: int, held_out: bool, question: str = "How many?", options: tuple[str, ...] = ("1", "2", "3")
) -> Item:
    return Item(
        video_id=f"v{answer}{held_out}",
        question_id=0,
        question=question,
        options=options,
        answer_id=answer,
        kind="object counting",
        values=(1.0, 2.0, 3.0),
        held_out=held_out,
    )


def test_question_only_baseline_learns_on_train_and_scores_held_out() -> None:
    train = [_answered(1, False), _answered(1, False), _answered(0, False)]  # "2" twice, "1" once
    held_out = [_answered(1, True), _answered(2, True), _answered(0, True, question="New?")]
    learned = question_only_answers([*train, *held_out])
    # "2" is right, "2" is wrong, and a question never seen scores chance.
    assert [question_only_score(item, learned) for item in held_out] == [1.0, 0.0, CHANCE]


def test_question_only_baseline_tells_sets_of_options_apart_but_not_their_order() -> None:
    learned = question_only_answers([_answered(0, False, options=("1", "2", "3"))])  # "1"
    assert question_only_score(_answered(2, True, options=("3", "2", "1")), learned) == 1.0
    assert question_only_score(_answered(0, True, options=("1", "2", "4")), learned) == CHANCE


def test_answer_frequency_takes_the_most_frequent_answer_of_each_question() -> None:
    items = [_answered(1, True), _answered(1, True), _answered(0, True), _answered(2, True, question="Other?")]
    assert answer_frequency(items) == 3 / 4  # two of the three, and the only one of the other
