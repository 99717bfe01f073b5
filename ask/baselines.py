"""What questions give away without the video: the baselines that a model's accuracy is compared with."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ask.inference import pooled_interval
from ask.questions import CHANCE, Item


def answer_text(item: Item) -> str:
    """Return the text of the correct option."""
    return item.options[item.answer_id]


def question_only_answers(items: Iterable[Item]) -> dict[tuple[str, frozenset[str]], str]:
    """Learn the most frequent answer of each (question text, set of options) from the train items.

    Ties go to the answer that sorts first, so that the baseline is the same in every run.
    """
    counts: dict[tuple[str, frozenset[str]], Counter[str]] = defaultdict(Counter)
    for item in items:
        if not item.held_out:
            counts[item.question, frozenset(item.options)][answer_text(item)] += 1
    return {key: min(counter, key=lambda text, c=counter: (-c[text], text)) for key, counter in counts.items()}


def question_only_score(item: Item, answers: Mapping[tuple[str, frozenset[str]], str]) -> float:
    """Score an item by the learned answer: 1 or 0, and chance for a question and options never seen in training."""
    guess = answers.get((item.question, frozenset(item.options)))
    return CHANCE if guess is None else float(guess == answer_text(item))


def answer_frequency(items: Iterable[Item]) -> float:
    """Share of the items answered by always giving the most frequent answer of their question text.

    Counted on the very items it is scored on, so it is an upper bound for what a prior over answers can reach.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        counts[item.question][answer_text(item)] += 1
    total = sum(counter.total() for counter in counts.values())
    return sum(max(counter.values()) for counter in counts.values()) / total if total else float("nan")


def kinds_of(items: Sequence[Item]) -> list[tuple[str, bool, list[Item]]]:
    """List (kind, whether it is a counting kind, its items), the two totals first and the counting kinds before others.

    Kinds without items are left out.
    """
    counting = [item for item in items if item.counting]
    other = [item for item in items if not item.counting]
    groups = [("all counting", True, counting), ("all non-counting", False, other)]
    for flag, group in ((True, counting), (False, other)):
        kinds = sorted({item.kind for item in group})
        groups += [(kind, flag, [item for item in group if item.kind == kind]) for kind in kinds]
    return [group for group in groups if group[2]]


def baselines(items: Sequence[Item], answered: pd.DataFrame) -> pd.DataFrame:
    """Return baselines.parquet: scores without the video next to the model's, per kind and split.

    Args:
        items: all evaluated items.
        answered: rows of items.parquet, with the unedited model's answers.
    """
    learned = question_only_answers(items)
    by_item = answered.set_index("item")
    rows: list[dict[str, Any]] = []
    for split, held_out in (("train", False), ("held_out", True)):
        for kind, is_counting, group in kinds_of([item for item in items if item.held_out == held_out]):
            own = by_item.loc[[item.item_id for item in group]]
            videos = [item.video_id for item in group]
            accuracies = own["accuracy"].to_numpy(dtype=np.float64)
            low, high = pooled_interval(accuracies, videos, np.random.default_rng(0))
            without = {
                "chance": CHANCE,
                "answer_frequency": answer_frequency(group),
                "question_only": float(np.mean([question_only_score(item, learned) for item in group])),
            }
            rows.append(
                {
                    "kind": kind,
                    "counting": is_counting,
                    "split": split,
                    "n_items": len(group),
                    "n_videos": len(set(videos)),
                    **without,
                    "best_baseline": max(without.values()),
                    "accuracy": float(own["accuracy"].mean()),
                    "accuracy_low": low,
                    "accuracy_high": high,
                    "margin": float(own["margin"].mean()),
                }
            )
    return pd.DataFrame(rows)
