"""The sentences of the report follow from the numbers, in every case."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from steer.findings import (
    accuracies,
    action,
    answer_verdict,
    association_rows,
    coincidence,
    effect_verdict,
    gallery_latents,
    interval,
    number,
    object_verdict,
    opposite_signs,
    percent,
    probability,
    screen_agreement,
    signed,
    target_rows,
    why_not,
)
from tests.steer.finished_run import association_row, baseline_rows, catalogue_row, effect_row, item_rows, labelled_row


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def test_numbers_are_written_for_readers() -> None:
    assert (number(-0.12345), signed(0.5, 1), signed(-2, 0), percent(1 / 3)) == ("−0.123", "+0.5", "−2", "33 %")
    assert [number(missing) for missing in (None, np.nan)] == ["–", "–"]
    assert (interval(-1, 2, 1, sign=True), interval(None, 2)) == ("[−1.0, +2.0]", "")
    assert (probability(0.0004), probability(0.01), probability(None)) == ("< 0.001", "0.010", "–")


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ("ablate", "Ablating"),
        ("scale:2", "Doubling"),
        ("scale:0.5", "Scaling by 0.5"),
        ("clamp:p95", "Clamping to its p95"),
        ("add:-0.25", "Adding −0.25 median norms of"),
    ],
)
def test_every_operation_has_words(operation: str, words: str) -> None:
    assert action(operation) == words


def test_accuracies_carry_an_interval_over_videos() -> None:
    rows = {row["kind"]: row for row in accuracies(frame(*item_rows()), frame(*baseline_rows()))}
    # Three of four held-out videos are right on object counting, the fourth in one of three orders.
    assert rows["object counting"]["accuracy_low"] < 0.83 < rows["object counting"]["accuracy_high"]
    assert (rows["colour"]["accuracy_low"], rows["colour"]["accuracy_high"]) == (1.0, 1.0)
    assert rows["colour"]["best_baseline"] == 0.5


@pytest.mark.parametrize(("low", "answer"), [(0.51, "yes"), (0.49, "no")])
def test_a_model_counts_if_its_interval_lies_above_every_baseline(low: float, answer: str) -> None:
    rows = accuracies(frame(*item_rows()), frame(*baseline_rows()))
    rows[0]["accuracy_low"] = low  # the best baseline is 0.5
    verdict = answer_verdict(rows)
    assert verdict.answer == answer
    assert "object counting, with 83 %" in verdict.text
    assert answer_verdict([]).answer == "unknown"


def test_an_object_latent_needs_a_label_that_holds_and_an_auroc() -> None:
    clear = object_verdict(
        frame(labelled_row(0, "cup", 0.92), labelled_row(1, "ball", 0.97), catalogue_row(2)),
        frame(association_row(0, "cup", 0.92), association_row(1, "ball", 0.97)),
    )
    assert clear.answer == "yes"
    assert clear.headline == "2 latents follow one object with a held-out AUROC of 0.9 or more"
    assert "The clearest is latent 1, which fires on “ball”: held-out AUROC 0.970 [0.930, 0.990]" in clear.text
    weak = object_verdict(frame(labelled_row(0, "cup", 0.8)), frame(association_row(0, "cup", 0.8)))
    assert (weak.answer, weak.headline) == (
        "partly",
        "no latent follows one object with a held-out AUROC of 0.9 or more",
    )
    none = object_verdict(
        frame(labelled_row(0, "cup", 0.95, labelled=False)),
        frame(association_row(0, "cup", 0.95, holds=False, q_value=0.2)),
    )
    assert none.answer == "no"
    assert "0.950 for latent 0 and “cup”, does not count: its q-value is 0.200" in none.text
    action_only = labelled_row(0, "clapping", 0.99, top_label_kind="action")
    assert object_verdict(frame(action_only), frame(association_row(0, "clapping", 0.99, kind="action"))).answer == "no"
    assert object_verdict(None, None).answer == "unknown"


def test_the_failing_conditions_are_named() -> None:
    row = association_row(0, "cup", 0.6, holds=False, q_value=0.5, within_low=0.4, control_auroc_p95=0.7)
    reasons = why_not(row)
    for words in ("q-value is 0.500", "reaches down to 0.400", "5 % of its controls reach 0.700"):
        assert words in reasons


def test_an_effect_must_beat_its_controls_and_hold_over_videos() -> None:
    strong = effect_verdict(frame(effect_row("3", "ablate", -0.5), effect_row("4", "ablate", 0.1)))
    assert (strong.answer, strong.headline) == (
        "yes",
        "1 of 2 edited latents moves the counting answers more than matched controls do",
    )
    assert "ablating latent 3 changes the margin by −0.500 nats [−0.600, −0.400]" in strong.text
    weak = effect_verdict(frame(effect_row("3", "ablate", -0.5, q_value=0.3)))
    assert weak.answer == "partly"
    assert weak.headline.endswith("but not reliably over videos")
    none = effect_verdict(frame(effect_row("3", "ablate", -0.1), effect_row("4", "ablate", 0.19)))
    assert none.answer == "no"
    assert "The largest change is ablating latent 4" in none.text
    together = effect_verdict(frame(effect_row("3", "ablate", 0.0), effect_row("set", "ablate", -2.0)))
    assert together.headline == "the edited set moves the counting answers more than matched controls do"
    assert effect_verdict(frame(effect_row("3", "ablate", -0.5, limit=None))).answer == "unknown"
    assert effect_verdict(None).answer == "unknown"


def test_the_gallery_takes_one_latent_per_label_first() -> None:
    rows = [labelled_row(*each) for each in ((0, "cup", 0.99), (1, "cup", 0.98), (2, "ball", 0.9), (3, "box", 0.95))]
    assert gallery_latents(frame(*rows, catalogue_row(4, top_label="cup", top_auroc=1.0)), 4) == [0, 3, 2, 1]


def test_associations_that_hold_come_before_higher_ones_that_do_not() -> None:
    rows = [
        association_row(0, "cup", 0.99, holds=False),
        association_row(1, "cup", 0.8),
        association_row(2, "cup", 0.9),
        association_row(2, "cup", 1.0, split="train"),
    ]
    assert association_rows(frame(*rows), 5)["latent"].tolist() == [2, 1]
    assert association_rows(frame(rows[0]), 5)["latent"].tolist() == [0]


def test_labels_and_effects_are_counted_together() -> None:
    catalogue = frame(catalogue_row(0), labelled_row(1, "cup", 0.9), labelled_row(2, "ball", 0.9))
    effects = [("1", -0.5), ("2", 0.1), ("0", 0.3), ("set", -2.0)]
    rows = target_rows(frame(*(effect_row(target, "ablate", delta) for target, delta in effects)), catalogue)
    assert [row.target for row in rows] == ["1", "0", "2", "set"]  # by size, the set last
    assert [row.label for row in rows] == ["cup", "no label holds", "ball", ""]
    assert coincidence(rows) == (
        "Of 2 edited latents with a label that holds, 1 beat their controls; of 1 without one, 1 do."
    )
    assert coincidence(target_rows(frame(effect_row("1", "ablate", 1.0)), None)) == ""


def test_opposite_edits_are_compared() -> None:
    both = [effect_row("1", "ablate", -0.5), effect_row("1", "scale:2", 0.4)]
    same = [effect_row("2", "ablate", -0.5), effect_row("2", "scale:2", -0.4)]
    small = [effect_row("3", "ablate", -0.1), effect_row("3", "scale:2", 0.1)]
    assert "Of 2 targets that beat the controls, 1 change" in opposite_signs(frame(*both, *same, *small))
    assert opposite_signs(frame(*small)) == ""
    assert opposite_signs(frame(both[0])) == ""


def test_the_screen_is_compared_with_exact_runs() -> None:
    rows = [effect_row(str(n), "ablate", delta) for n, delta in enumerate((-0.4, -0.3, 0.1, 0.2))]
    text = screen_agreement(frame(*rows))  # the screen estimates nine tenths of each
    assert "rank correlation of 1.00 and has the same sign for 4." in text
    assert screen_agreement(frame(*rows[:3])) == ""
