"""The shipped model: its card's numbers, and that it still answers far above chance on videos it never saw."""

import json
from pathlib import Path

import numpy as np
import pytest

from demo.run import WEIGHTS
from demo.vlm.evaluate import accuracies, summary
from demo.world.generate import WorldConfig
from demo.world.questions import KINDS


def test_the_weights_are_small_and_safe() -> None:
    files = {path.name: path.stat().st_size for path in WEIGHTS.iterdir()}
    assert files["model.safetensors"] <= 16e6
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]


def test_the_card_s_numbers_are_the_evaluation_s() -> None:
    evaluation = json.loads((WEIGHTS / "evaluation.json").read_text())
    card = (WEIGHTS / "README.md").read_text()
    assert set(evaluation["kinds"]) == set(KINDS)
    for kind, row in evaluation["kinds"].items():
        assert f"| {kind} | {KINDS[kind][0]} | {row['accuracy']:.3f} |" in card
    assert evaluation["summary"] == pytest.approx(summary(evaluation["kinds"]))


def test_answers_cannot_be_guessed_without_the_video() -> None:
    rows = json.loads((WEIGHTS / "evaluation.json").read_text())["kinds"].values()
    n = np.array([row["n_questions"] for row in rows])
    guessed = np.array([row["question_only"] for row in rows])
    # a third of the files is scored, so the standard error around chance is about sqrt(2/9 / (n / 3))
    assert np.average(guessed, weights=n) < 1 / 3 + 3 * np.sqrt(2 / 9 / (n.sum() / 3))


def test_it_answers_unseen_videos_far_above_chance(tiny_world: Path, world_config: WorldConfig) -> None:
    table = accuracies(WEIGHTS, tiny_world, world_config.seed)
    n = sum(row["n_questions"] for row in table.values())
    right = sum(row["n_questions"] * row["accuracy"] for row in table.values())
    # guessing: mean n/3, and a question's three orders are one draw at most, so the standard error is sqrt(n * 2/9)
    assert right > n / 3 + 2 * np.sqrt(n * 2 / 9)
