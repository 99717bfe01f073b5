"""The sentences of the report follow from the numbers, in every case."""

from typing import Any

import pandas as pd
import pytest

from report.verdicts import (
    accuracies,
    answer_verdict,
    association_rows,
    gallery_latents,
    object_verdict,
    why_not,
)
from tests.steer.finished_run import association_row, baseline_rows, catalogue_row, labelled_row


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
    assert clear.headline == "2 latents follow one object or attribute with a held-out AUROC of 0.9 or more"
    assert "The clearest is latent 1, which fires on “ball”: held-out AUROC 0.970 [0.930, 0.990]" in clear.text
    weak = object_verdict(frame(labelled_row(0, "cup", 0.8)), frame(association_row(0, "cup", 0.8)))
    assert (weak.answer, weak.headline) == (
        "partly",
        "no latent follows one object or attribute with a held-out AUROC of 0.9 or more",
    )
    none = object_verdict(
        frame(labelled_row(0, "cup", 0.95, labelled=False)),
        frame(association_row(0, "cup", 0.95, holds=False, q_value=0.2)),
    )
    assert none.answer == "no"
    assert "0.950 for latent 0 and “cup”, does not count: its q-value is 0.200" in none.text
    action_only = labelled_row(0, "clapping", 0.99, top_label_kind="action")
    compared = [association_row(0, "clapping", 0.99, kind="action"), association_row(0, "cup", 0.6, holds=False)]
    assert object_verdict(frame(action_only), frame(*compared)).answer == "no"
    assert object_verdict(None, None).answer == "unknown"


def test_without_annotated_objects_nothing_is_said_of_them() -> None:
    for associations in (
        frame(association_row(0, "clapping", 0.9, kind="action")),
        frame(association_row(0, "cup", 0.9))[:0],
    ):
        verdict = object_verdict(frame(catalogue_row(0)), associations)
        assert (verdict.answer, verdict.headline) == (
            "unknown",
            "no latent was compared with an object or attribute",
        )


def test_the_runs_own_rate_decides_what_is_amiss() -> None:
    row = association_row(0, "cup", 0.95, holds=True, q_value=0.1)
    assert "q-value is 0.100" in why_not(row)
    assert "q-value" not in why_not(row, 0.2)


def test_the_failing_conditions_are_named() -> None:
    row = association_row(0, "cup", 0.6, holds=False, q_value=0.5, within_low=0.4, control_auroc_p95=0.7)
    reasons = why_not(row)
    for words in ("q-value is 0.500", "reaches down to 0.400", "5\u00a0% of its controls reach 0.700"):
        assert words in reasons


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
