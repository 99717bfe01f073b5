"""Rows of items.parquet: each question with the unedited model's answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ask.answers import answers
from ask.baselines import question_only_score
from ask.cases import Case


def item_rows(case: Case, learned: Mapping[tuple[str, frozenset[str]], str]) -> list[dict[str, Any]]:
    """Rows of the questions about one video.

    Args:
        case: the video with its questions.
        learned: from `ask.baselines.question_only_answers`.
    """
    found = answers(case.logits, case.mass, case.correct, case.values)
    return [
        {
            "item": item.item_id,
            "video_id": item.video_id,
            "question_id": item.question_id,
            "kind": item.kind,
            "counting": item.counting,
            "subject": item.subject,
            "held_out": item.held_out,
            "question": item.question,
            "options": list(item.options),
            "values": None if item.values is None else list(item.values),
            "answer_id": item.answer_id,
            "hash": item.hash,
            "question_only": question_only_score(item, learned),
            "margin": float(found.margin[place]),
            "accuracy": float(found.accuracy[place]),
            "expected_count": float(found.expected_count[place]),
            "option_mass": float(found.option_mass[place]),
        }
        for place, item in enumerate(case.items)
    ]
