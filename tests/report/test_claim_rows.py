"""Claims in words, and effects by target and subject: every case of a claim has its sentence."""

from typing import Any

import pandas as pd
import pytest

from report.claim_rows import claim_counts, claim_lines, dissociation_lines, screen_agreement, subject_table
from steer.evidence.claims import claims
from steer.tables import DISSOCIATIONS, TARGET_SUBJECTS
from tests.steer.effect_rows import (
    NO_DOSES,
    NO_SUBJECTS,
    OPERATIONS,
    OTHER_SUBJECT,
    SUBJECT,
    effect_row,
    latent_subject_rows,
    row,
    screens_rows,
    targets_of,
)

TARGETS = targets_of("3", "4", "set")


NO_OTHER, NO_NONCOUNTING = (
    dict.fromkeys(f"delta_margin_{of}{end}" for end in ("", "_low", "_high")) for of in ("other", "noncounting")
)


def claimed(*rows: dict[str, Any]) -> pd.DataFrame:
    return claims(pd.DataFrame(list(rows)), NO_SUBJECTS, OPERATIONS, NO_DOSES)


def effect(target: str = "3", delta: float = -0.5, **values: Any) -> dict[str, Any]:
    return effect_row(target, "ablate", delta, **{"n_videos_active": 6, "n_videos": 8, **values})


def test_a_specific_latent_is_set_against_the_other_questions() -> None:
    both = claimed(effect(), effect_row("3", "scale:2", 0.4, n_videos_active=6))
    (line,) = claim_lines(both, TARGETS, 5)
    assert line.claim == "specific"
    assert line.text == (
        "Ablating latent 3 changes the margin of “object” questions by −0.50\u00a0nats [−0.60, −0.40] (8 videos, "
        "q\u00a0= 0.010, against 9 controls q\u00a0= 0.020), others that were asked by a quarter of it at most: "
        "other counting questions +0.02 [+0.00, +0.03]; non-counting questions +0.05 [+0.00, +0.10]. The expected "
        "count gets lower: −0.10 [−0.11, −0.09], and the opposite edit moves it the other way."
    )
    assert "q < 0.05 against controls" in line.rule


@pytest.mark.parametrize(
    ("values", "claim", "said"),
    [
        (
            {"delta_margin_other_low": -0.4},
            "not specific",
            "some others change by more than a quarter of it, or may: other",
        ),
        (NO_OTHER, "specific", "at most: no other counting questions were asked; non-counting questions +0.05"),
        (
            NO_OTHER | NO_NONCOUNTING,
            "specificity not tested",
            "whether it changes others was not tested: no other counting questions were asked; no non-counting",
        ),
        (
            NO_OTHER | dict.fromkeys(list(NO_NONCOUNTING)[1:]),
            "specificity not tested",
            "not tested: no other counting questions were asked; non-counting questions +0.05 in one video.",
        ),
        (
            {"control_q_value": 0.3, "control_p_value": 0.1},
            "too few controls",
            "They are too few to tell (q\u00a0= 0.300): it takes 20 at least, with --controls 7. Other counting",
        ),
        (
            {"control_q_value": 0.2, "control_p_value": 0.3},
            "generic damage",
            "but directions of its size do as much (against 9 controls",
        ),
        (
            {"control_q_value": 0.2, "control_p_value": 0.1, "n_controls": 19},
            "not beyond controls",
            "but some directions of its size do as much (against 19 controls",
        ),
        ({"q_value": 0.2}, "undecided", "the interval leaves out zero, but the test over videos does not decide"),
        (
            {"q_value": 0.2, "delta_margin_high": 0.1, "delta_expected_count": 0.0},
            "no effect on the margin",
            "found (8 videos, −0.50\u00a0nats [−0.60, +0.10]). One of ±0.60\u00a0nats or more would have been found",
        ),
        (
            {"q_value": 0.2, "delta_margin_high": 0.1},
            "no effect on the margin",
            "of this edit alone. The expected count gets lower: −0.10 [−0.11, −0.09].",
        ),
        (
            {"q_value": 0.2, "n_videos_active": 2},
            "too few videos",
            "2 videos with “object” questions are too few",
        ),
        (
            {"q_value": 0.2, "detectable": None},
            "too few videos",
            "6 videos, of which fewer than 6 change at all, with “object” questions are too few",
        ),
        ({"limit": None}, "no controls", "it was not compared with controls"),
        ({"delta_expected_count": 0.0}, "specific", "Where the count goes is undecided."),
    ],
)
def test_every_claim_has_its_sentence(values: dict[str, Any], claim: str, said: str) -> None:
    (line,) = claim_lines(claimed(effect(**values)), TARGETS, 5)
    assert line.claim == claim
    assert said in line.text
    assert "nan" not in line.text


def test_lines_come_by_claim_then_single_latents_then_size() -> None:
    table = claimed(
        effect("set", -2.0), effect("4", -0.4), effect("3", -0.5), effect("3", -0.1) | {"operation": "scale:2"}
    )
    lines = claim_lines(table, TARGETS, 5)
    assert [line.text.split(" changes")[0] for line in lines] == [
        "Ablating latent 3",
        "Ablating latent 4",
        "Ablating the set of 3 latents",
    ]
    assert len(claim_lines(table, TARGETS, 1)) == 1
    assert claim_counts(table) == [("specific", 3), ("generic damage", 1)]  # -0.1 is within its controls


def test_specific_latents_stand_against_every_chosen_subject() -> None:
    by_subject = pd.DataFrame(
        [
            row(TARGET_SUBJECTS, target=name, operation="ablate", subject=subject, delta_margin=value)
            for name in ("3", "set")
            for subject, value in ((SUBJECT, -0.5), (OTHER_SUBJECT, 0.0))
        ]
    )
    found = subject_table(by_subject, claimed(effect(), effect("set", -2.0), effect("4", -0.1)), TARGETS, 3)
    assert found is not None
    assert found.subjects == (SUBJECT,)  # what any target was chosen for
    ((target, (cell,)),) = found.rows  # neither the set nor what is not specific
    assert target.id == "3"
    assert cell is not None
    assert cell["delta_margin"] == -0.5
    assert subject_table(by_subject, claimed(effect("4", -0.1)), TARGETS, 3) is None


def test_a_double_dissociation_names_all_four_effects() -> None:
    pair = row(
        DISSOCIATIONS,
        one="3",
        one_subject="lamp",
        other="4",
        other_subject="cover",
        one_on_one=-11.0,
        one_on_other=0.0,
        other_on_one=0.01,
        other_on_other=-5.8,
    )
    (line,) = dissociation_lines(pd.DataFrame([pair]), TARGETS, 5)
    assert line == (
        "latent 3 moves “lamp” questions by −11.00 and “cover” questions by +0.00; latent 4 moves the latter by −5.80 "
        "and the former by +0.01."
    )


def test_the_screens_are_compared_with_the_sweep() -> None:
    rows, screens = latent_subject_rows(), pd.DataFrame(screens_rows())
    text = screen_agreement(pd.DataFrame(rows), screens)
    assert "5 of 6 active latents were ablated exactly" in text
    # 4 x 1 / 4; and (4 x 0.5 + 4 x 0.25) / 8 = 0.375
    # By chance, 4 of 5 latents.
    assert (
        "Among those that were in all videos of a subject (5 latents), the screens had of its largest exact effects "
        "(20 at most) among as many largest estimates: direct 100 % (at random 80 %), gradient 38 % (at random 80 %)."
    ) in text.replace("\u00a0", " ")
    # Two subjects of 2 edits each of which 1 was drawn; 0 of 2 large: 1 - 0.05^(1/2) = 0.776.
    assert "Of 4 other effects" in text
    assert "2 were drawn at random" in text
    assert "0 exceeded 0.1 nats, so that at most 77.6 % of all do" in text.replace("\u00a0", " ")
    assert "drawn at random" not in screen_agreement(pd.DataFrame(rows), screens.assign(n_drawn=0))
    assert screen_agreement(pd.DataFrame(rows[:6]), screens) == ""  # three latents
    assert screen_agreement(pd.DataFrame(rows), screens.iloc[:0]) == ""
