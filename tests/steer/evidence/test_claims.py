"""Every claim follows from its rule, one condition at a time; a null model claims nothing."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ask.questions import Item
from features.association.inference import benjamini_hochberg
from steer.controls import FAMILIES
from steer.edits.operations import Operation
from steer.evidence.claims import RULES, claim_name, claims, direction, dissociations
from steer.evidence.summary import SIGNIFICANT_Q, summarise
from steer.tables import CLAIM_NAMES, CONTROLS
from steer.targets import Target
from tests.steer.effect_rows import NO_DOSES, NO_SUBJECTS, OPERATIONS, effect_row
from tests.steer.toy import SUBJECT, counting_item

NO_OTHER = {f"delta_margin_other_{end}": None for end in ("low", "high")}
NO_OTHERS = NO_OTHER | {f"delta_margin_noncounting_{end}": None for end in ("low", "high")}


def row(**values: Any) -> dict[str, Any]:
    beside = values.pop("delta_margin_beside", 0.0)
    return effect_row("3", "ablate", -0.5, **{"n_videos_active": 6, **values}) | {"delta_margin_beside": beside}


@pytest.mark.parametrize(
    ("values", "claim"),
    [
        ({}, "specific"),
        ({"delta_margin_other_low": -0.13}, "not specific"),  # beyond a quarter of 0.5
        ({"delta_margin_noncounting_high": 0.13}, "not specific"),
        ({"delta_margin_other": None, **NO_OTHER}, "specific"),  # no such questions: it is specific among the rest
        ({"delta_margin_other": 0.13, **NO_OTHER}, "not specific"),  # of one video, which has no interval
        (NO_OTHERS, "specificity not tested"),
        ({**NO_OTHERS, "delta_margin_noncounting": -0.13}, "not specific"),
        ({**NO_OTHERS, "delta_margin_beside": 0.13}, "not specific"),
        ({"delta_margin_beside": 0.13}, "not specific"),
        ({"delta_margin_beside": None}, "specific"),
        ({"control_q_value": 0.05, "n_controls": 59}, "not beyond controls"),  # a tenth of them do as much
        ({"control_q_value": 0.3, "control_p_value": 0.2}, "generic damage"),
        ({"control_q_value": 0.3, "control_p_value": 0.2, "delta_margin": 0.5}, "not beyond controls"),  # no damage
        ({"control_q_value": 0.12, "control_p_value": 0.1, "n_controls": 9}, "too few controls"),  # none does as much
        ({"control_q_value": 0.12, "control_p_value": 0.2, "n_controls": 9}, "generic damage"),  # one does
        ({"control_q_value": 0.16, "control_p_value": 2 / 21, "n_controls": 20}, "not beyond controls"),
        ({"limit": None}, "no controls"),
        ({"q_value": 0.05}, "undecided"),
        ({"q_value": 0.05, "delta_margin_high": 0.0}, "no effect on the margin"),
        ({"q_value": 0.05, "n_videos_active": 5}, "too few videos"),
        ({"q_value": 0.05, "delta_margin_high": 0.0, "detectable": None}, "too few videos"),  # zero in all but a few
        ({"q_value": float("nan"), "n_videos_active": 0}, "too few videos"),
    ],
)
def test_a_claim_follows_from_its_rule(values: dict[str, Any], claim: str) -> None:
    assert (
        claim_name(row(**{name: float("nan") if v is None and name != "limit" else v for name, v in values.items()}))
        == claim
    )


@pytest.mark.parametrize(
    ("n", "p_values", "needed"),
    [(12, [1 / 13], 20), (12, [1 / 13, 0.5], 40), (12, [1 / 13, 1 / 13], 20), (30, [1 / 31, 0.4, 0.5], 60)],
)
def test_so_many_controls_are_needed_that_none_more_would_do(n: int, p_values: list[float], needed: int) -> None:
    own = {"control_p_value": p_values[0], "control_q_value": 0.06, "n_controls": n}
    rows = [effect_row("3", "ablate", -0.5, **own)]
    rows += [effect_row(str(name), "ablate", 0.1, control_p_value=p) for name, p in enumerate(p_values[1:], 4)]
    found = claims(pd.DataFrame(rows), NO_SUBJECTS, OPERATIONS, NO_DOSES)
    assert found["claim"][0] == "too few controls"
    assert found["controls_needed"][0] == needed
    q = [
        benjamini_hochberg(
            np.array(
                [1 / (1 + each)] * p_values.count(p_values[0]) + [1.0] * (len(p_values) - p_values.count(p_values[0]))
            )
        )[0]
        for each in (needed, needed - 1)
    ]
    assert q[0] < SIGNIFICANT_Q <= q[1] + 1e-12


def test_every_claim_has_a_rule() -> None:
    assert set(RULES) == set(CLAIM_NAMES)


def test_directions_are_those_of_the_expected_count() -> None:
    assert direction(row(delta_expected_count_low=-0.3, delta_expected_count_high=-0.1)) == "lower"
    assert (
        direction(row(delta_expected_count=0.2, delta_expected_count_low=0.1, delta_expected_count_high=0.3))
        == "higher"
    )
    assert direction(row(delta_expected_count_low=-0.1, delta_expected_count_high=0.3)) == "undecided"
    assert direction(row(delta_expected_count=-0.04)) == "undecided"  # too little to tell


def test_opposite_edits_oppose_each_other_only_beyond_their_intervals() -> None:
    ablated, doubled = effect_row("3", "ablate", -0.5), effect_row("3", "scale:2", 0.4)
    found = claims(pd.DataFrame([ablated, doubled, effect_row("4", "ablate", -0.5)]), NO_SUBJECTS, OPERATIONS, NO_DOSES)
    assert found["opposed"].tolist() == [True, True, None]
    tiny = effect_row("3", "scale:2", 0.4, delta_expected_count_low=-0.001, delta_expected_count_high=0.002)
    rows = pd.DataFrame([ablated, tiny])
    assert claims(rows, NO_SUBJECTS, OPERATIONS, NO_DOSES)["opposed"].tolist() == [False, False]
    doses = pd.DataFrame([{"target": "3", "opposed": True}])
    found = claims(rows, NO_SUBJECTS, OPERATIONS, doses)
    assert found["opposed"].tolist() == [True, True]  # doses decide where they were run


@pytest.mark.parametrize("operation", ["swap", "clamp:p95", "ablate@last", "scale:3"])
def test_doses_say_nothing_of_edits_that_they_do_not_compare(operation: str) -> None:
    rows = pd.DataFrame([effect_row("3", operation, -0.5)])
    doses = pd.DataFrame([{"target": "3", "opposed": True}])
    assert claims(rows, NO_SUBJECTS, [Operation.parse(operation)], doses)["opposed"].tolist() == [None]


def test_the_bound_of_a_missing_effect_is_what_would_have_been_found() -> None:
    (found,) = claims(pd.DataFrame([row(q_value=0.5, detectable=0.7)]), NO_SUBJECTS, OPERATIONS, NO_DOSES)["bound"]
    assert found == 0.7
    (found,) = claims(pd.DataFrame([row(q_value=0.5, detectable=0.1)]), NO_SUBJECTS, OPERATIONS, NO_DOSES)["bound"]
    assert found == pytest.approx(0.6)  # the interval reaches to -0.6


def single(name: str, subject: str) -> Target:
    return Target(id=name, latents=(int(name),), selected_by="sweep", subject=subject)


def on_subjects(**effects: tuple[float, float]) -> pd.DataFrame:
    """Rows of target_subjects.parquet: the effects of targets 3 and 4 on `object` and on `cup` questions."""
    return pd.DataFrame(
        [
            {
                "target": target,
                "operation": "ablate",
                "subject": subject,
                "n_videos": 6,
                "is_chosen": (target == "3") == (subject == "object"),
                **{f"delta_margin{end}": value for end in ("", "_low", "_high")},
            }
            for target, values in (("3", effects["three"]), ("4", effects["four"]))
            for subject, value in zip(("object", "cup"), values, strict=True)
        ]
    )


SUMMARY_ROWS = pd.DataFrame([effect_row("3", "ablate", -0.5), effect_row("4", "ablate", -0.5, subject="cup")])


def test_a_subject_that_hides_among_all_others_is_seen() -> None:
    found = claims(SUMMARY_ROWS, on_subjects(three=(-0.5, 0.0), four=(0.2, -0.5)), OPERATIONS, NO_DOSES)
    assert found["claim"].tolist() == ["specific", "not specific"]  # although all others together move by 0.02
    assert found["beside_subject"].tolist() == ["cup", "object"]
    assert found["delta_margin_beside"].tolist() == [0.0, 0.2]
    alone = claims(SUMMARY_ROWS, NO_SUBJECTS, OPERATIONS, NO_DOSES)
    assert (alone["beside_subject"].isna() & alone["delta_margin_beside"].isna()).all()
    few = on_subjects(three=(-0.5, 0.0), four=(0.2, -0.5)).assign(n_videos=5)
    assert claims(SUMMARY_ROWS, few, OPERATIONS, NO_DOSES)["claim"].tolist() == ["specific", "specific"]


@pytest.mark.parametrize(("across", "n"), [(0.01, 1), (-0.13, 0)])
def test_a_double_dissociation_needs_both_sides(across: float, n: int) -> None:
    by_subject = on_subjects(three=(-0.5, 0.0), four=(across, -0.5))
    claimed = claims(SUMMARY_ROWS, NO_SUBJECTS, OPERATIONS, NO_DOSES)
    assert len(dissociations(claimed, by_subject, [single("3", "object"), single("4", "cup")])) == n
    same = claimed.assign(subject="object")
    assert len(dissociations(same, by_subject, [single("3", "object"), single("4", "object")])) == 0
    unknown = by_subject.assign(delta_margin_low=np.nan, delta_margin_high=np.nan)  # of one video
    assert len(dissociations(claimed, unknown, [single("3", "object"), single("4", "cup")])) == 0


def null_items(n: int) -> list[Item]:
    own = [counting_item(f"v{number:02d}") for number in range(n)]
    return own + [dataclasses.replace(item, question="How many cups?", question_id=1) for item in own]


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_null_model_claims_no_specific_latent_more_often_than_its_thresholds_allow(scale: float) -> None:
    """Effects and controls from one distribution: p-values against controls are uniform, and nothing is specific."""
    rng = np.random.default_rng(0)
    items, found = null_items(10), list[str]()
    p_values: list[float] = []
    for seed in range(20):
        names = [str(number) for number in range(6)]
        targets = [single(name, SUBJECT) for name in names]
        effects = pd.DataFrame(
            [
                {
                    **dict.fromkeys(("delta_accuracy", "right_to_wrong", "wrong_to_right", "kl"), 0.0),
                    "target": name,
                    "operation": "ablate",
                    "item": item.item_id,
                    "delta_margin": rng.normal(scale=scale),
                    "delta_expected_count": 0.0,
                }
                for name in names
                for item in items
            ]
        )
        controls = pd.DataFrame(
            [
                dict.fromkeys(CONTROLS.names, 0)
                | {"target": name, "magnitude": "scale 1", "family": family, "index": index}
                | {"delta_margin": rng.normal(scale=scale, size=10).mean()}
                for name in names
                for family in FAMILIES
                for index in range(20)
            ]
        )
        screen = pd.DataFrame({"latent": range(6), "firing_rate": 0.1})
        table = summarise(effects, controls, screen, items, targets, [Operation.parse("ablate")], seed).summary
        found += claims(table, NO_SUBJECTS, OPERATIONS, NO_DOSES)["claim"].tolist()
        p_values += table["control_p_value"].tolist()
    assert found.count("specific") == found.count("not specific") == 0
    if scale:
        assert 0.4 < np.mean(p_values) < 0.6
        assert np.mean(np.array(p_values) < SIGNIFICANT_Q) < 0.1
    else:
        assert set(p_values) == {1.0}
