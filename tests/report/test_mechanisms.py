"""Sentences about mechanisms: the verdict, its number and its interval, grouped by latent and by subject."""

import pandas as pd
import pytest

from report.mechanisms import OPEN_QUESTIONS, VERBS, mechanism_lines, sentence
from steer.mechanism.tables import ASPECTS, MECHANISMS
from tests.steer.effect_rows import target
from tests.steer.finished_run import BALL, mechanism_rows


def test_what_is_said_is_grouped_by_latent_and_then_by_subject() -> None:
    table = pd.DataFrame(mechanism_rows(), columns=MECHANISMS.names)
    first, second = mechanism_lines(table, {str(BALL): target(str(BALL))})
    assert first.title == f"latent {BALL} on questions about “object”"
    (necessity, rule), (sufficiency, _) = first.lines
    assert rule == "rule of necessity"
    assert necessity == (
        "At one event it is necessary: without it there, the expected count changes by −0.60 [−0.70, −0.50] (4 videos)."
    )
    assert sufficiency == (
        "In a frame without an event it is part of a conjunction: its activations of an event change the count by "
        "+0.00 [−0.10, +0.10] (4 videos)."
    )
    assert second.title == "questions about “object”"
    assert second.lines[1][0] == (
        "The questions are more than half destroyed by 2 latents: 85\u00a0% [75\u00a0%, 95\u00a0%] of the margin on "
        "held-out videos (4 videos)."
    )


@pytest.mark.parametrize("aspect", ASPECTS)
def test_every_aspect_has_a_sentence(aspect: str) -> None:
    row = dict(mechanism_rows()[0], aspect=aspect, verdict="so and so", low=float("nan"), high=float("nan"))
    text = sentence(row)
    assert "so and so" in text
    assert text.endswith("(4 videos).")
    assert "[" not in text  # no interval is shown where there is none
    assert set(VERBS) == set(OPEN_QUESTIONS) == set(ASPECTS)


@pytest.mark.parametrize("aspect", ASPECTS)
def test_what_is_undecided_is_said_neither_to_be_nor_not_to_be(aspect: str) -> None:
    text = sentence(dict(mechanism_rows()[0], aspect=aspect, verdict="undecided"))
    assert text.startswith(("Whether", "How", "Which"))
    assert " is undecided: " in text
    assert " not " not in text


def test_what_is_undecided_is_named() -> None:
    row = dict(mechanism_rows()[0], value=0.12, low=-0.1, high=0.3)
    text = sentence({**row, "aspect": "set", "verdict": "undecided: more than half destroyed by 2 latents"})
    assert text == (
        "Whether the questions are more than half destroyed by 2 latents is undecided: 12\u00a0% "
        "[−10\u00a0%, 30\u00a0%] of the margin on held-out videos (4 videos)."
    )
    text = sentence({**row, "aspect": "rivals", "verdict": "undecided: does more than the mean shift of the text"})
    assert text.startswith("Whether it does more than the mean shift of the text at equal norms is undecided: ")


def test_too_few_videos_are_said_to_be_that() -> None:
    row = dict(mechanism_rows()[0], verdict="too few videos")
    assert sentence(row) == "Necessity: 4 videos are too few to tell."
