"""The sentences of the report follow from the numbers, in every case."""

from typing import Any

import pandas as pd
import pytest

from report.verdicts import (
    Verdict,
    accuracies,
    answer_verdict,
    association_rows,
    effect_verdict,
    gallery_latents,
    object_verdict,
    why_not,
)
from steer.evidence.claims import claims
from tests.steer.effect_rows import NO_DOSES, NO_SUBJECTS, OPERATIONS, effect_row, targets_of
from tests.steer.finished_run import association_row, baseline_rows, catalogue_row, labelled_row

TARGETS = targets_of("3", "4", "set")


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def test_held_out_accuracies_come_first() -> None:
    held, train = baseline_rows(), [{**row, "split": "train"} for row in baseline_rows()]
    assert {row["split"] for row in accuracies(frame(*train, *held))} == {"held_out"}
    assert len(accuracies(frame(*train))) == len(train)


@pytest.mark.parametrize(("low", "answer"), [(0.51, "yes"), (0.49, "no")])
def test_a_model_counts_if_its_interval_lies_above_every_baseline(low: float, answer: str) -> None:
    rows = accuracies(frame(*baseline_rows()))
    rows[0]["accuracy_low"] = low  # the best baseline is 0.5
    verdict = answer_verdict(rows)
    assert verdict.answer == answer
    assert "object counting, with 83\u00a0%" in verdict.text
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
    for words in ("q-value is 0.500", "reaches down to 0.400", "5\u00a0% of its controls reach 0.700"):
        assert words in reasons


def effects(*rows: dict[str, Any]) -> Verdict:
    return effect_verdict(frame(*rows), claims(frame(*rows), NO_SUBJECTS, OPERATIONS, NO_DOSES), TARGETS)


def test_an_effect_must_beat_its_controls_hold_over_videos_and_leave_other_questions_alone() -> None:
    strong = effects(effect_row("3", "ablate", -0.5), effect_row("4", "ablate", 0.1))
    assert (strong.answer, strong.headline) == (
        "yes",
        "1 of 2 edited latents moves the counts of one subject and no others",
    )
    assert (
        "ablating latent 3, −0.50 nats [−0.60, −0.40] on “object” questions, where its controls stay within ±0.20; "
        "other counting questions +0.02; non-counting questions +0.05."
    ) in strong.text
    broad = effects(effect_row("3", "ablate", -0.5, delta_margin_other_low=-0.2))
    assert (broad.answer, broad.headline) == (
        "partly",
        "1 of 1 edited latent moves counting answers, but not of one subject alone",
    )
    assert effects(effect_row("3", "ablate", -0.5, q_value=0.3)).answer == "no"
    none = effects(effect_row("3", "ablate", -0.1), effect_row("4", "ablate", 0.19))
    assert none.answer == "no"
    assert "The largest change: ablating latent 4" in none.text
    together = effects(effect_row("3", "ablate", 0.0), effect_row("set", "ablate", -2.0))
    assert together.headline == "the edited set moves the counts of one subject and no others"
    both = effects(effect_row("3", "ablate", -0.5), effect_row("set", "ablate", -2.0))
    assert "The largest of a single latent: ablating latent 3" in both.text
    assert effects(effect_row("3", "ablate", -0.5, limit=None)).answer == "unknown"
    assert effect_verdict(None, None, {}).answer == "unknown"


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
