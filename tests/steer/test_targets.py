"""Selection: the screen's top, one sign for its set, labels by turns, and no latent twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from collect.artefact.folder import write_table
from collect.errors import UserError
from features.catalogue import ASSOCIATIONS
from steer.targets import LabelLatents, TrainEffects, by_label, by_predicted_cost, confirmable, targets
from tests.steer.finished_run import association_row
from tests.steer.toy import SUBJECT, counting_item, noncounting_item

SCREEN = pd.DataFrame(
    {
        "latent": np.arange(6),
        "status": ["screened"] * 5 + ["never active"],
        "z_train": [-3.0, 4.0, -1.0, 0.5, -3.0, np.nan],
    }
)


def test_the_set_holds_only_latents_whose_ablation_should_cost() -> None:
    assert by_predicted_cost(SCREEN, 6) == [0, 4, 2]


def test_there_is_no_such_latent_where_no_ablation_should_cost() -> None:
    assert by_predicted_cost(SCREEN.assign(z_train=SCREEN["z_train"].abs()), 6) == []
    assert by_predicted_cost(SCREEN.assign(z_train=np.nan), 6) == []
    assert by_predicted_cost(SCREEN.iloc[:0], 6) == []


def write_associations(folder: Path, rows: list[tuple[str, str, int, str, float]]) -> None:
    """Write associations.parquet from (kind, label, latent, split, auroc)."""
    table = [
        association_row(latent, label, auroc, kind=kind, split=split) for kind, label, latent, split, auroc in rows
    ]
    write_table(folder / "associations.parquet", pd.DataFrame(table, columns=ASSOCIATIONS.names), ASSOCIATIONS)


def test_kinds_of_label_take_turns_and_each_label_has_the_latents_that_follow_it(tmp_path: Path) -> None:
    rows = [
        ("object", "red ball", 1, "train", 0.99),
        ("object", "red ball", 2, "train", 0.98),
        ("object", "cup", 3, "train", 0.97),
        ("object", "cup", 5, "train", 0.74),  # follows too loosely
        ("action", "tap", 4, "train", 0.70),  # the best there is
        ("action", "tap", 2, "held_out", 1.00),  # held-out rows never select
        ("sound", "knock", 4, "train", 0.69),  # the action's latent again
    ]
    write_associations(tmp_path, rows)
    found = [(one.label, one.latents) for one in by_label(tmp_path, 3)]
    assert found == [("red ball", (1, 2)), ("tap", (4,)), ("cup", (3,))]
    assert by_label(tmp_path, 0) == []
    assert by_label(None, 3) == []


SUBJECTS = ("cup", "lamp")


def train(rows: list[tuple[int, str, float, float, float]] | None = None) -> TrainEffects:
    """Exact effects on train videos from (latent, subject, effect, on other questions, on non-counting questions)."""
    given = rows or [(latent, subject, 0.0, 0.0, 0.0) for latent in range(5) for subject in SUBJECTS]
    names = ("latent", "name", "delta_margin", "delta_margin_other", "delta_margin_noncounting")
    table = pd.DataFrame(given, columns=list(names))
    table = table.assign(scope="subject", method="exact", attribution=0.0, estimate=0.0)
    table = table.assign(delta_margin_low=-9.0, delta_margin_high=9.0)  # none is clear
    return TrainEffects(table, SUBJECTS)


LEADING = [
    *[(0, "lamp", -3.0, 0.1, 0.0), (0, "cup", 0.1, 3.0, 0.0)],
    *[(1, "lamp", -4.0, 3.9, 0.0), (1, "cup", -3.9, 4.0, 0.0)],  # moves everything alike
    *[(2, "lamp", 0.2, 0.5, 0.0), (2, "cup", 0.5, 0.2, 0.0)],
    *[(3, "lamp", -0.4, 0.0, 0.9), (3, "cup", 0.0, 0.4, 0.9)],
    *[(4, "lamp", 1.0, 0.0, 0.1), (4, "cup", 0.8, 0.0, 0.1)],
]


def test_the_leading_latents_move_their_subject_most_and_others_least() -> None:
    found = train(LEADING)
    assert found.leading("lamp", 9) == [0, 4, 1]  # by 3.0 - 0.1, 1.0 - 0.1 and 4.0 - 3.9
    assert found.leading("cup", 2) == [4, 2]
    assert found.subject_of([2]) == "cup"
    assert found.subject_of([0, 4]) == "lamp"  # -3 + 1 against 0.1 + 0.8
    assert found.effect([0, 4], "lamp") == -2.0
    assert found.effect([7], "lamp") is None
    assert found.subject_of([7]) == "cup"  # fires nowhere; the first by name


def test_latents_that_were_not_reached_come_after_those_that_were() -> None:
    table = pd.DataFrame(
        {
            "latent": [0, 1],
            "name": "lamp",
            "scope": "subject",
            "method": ["gradient", "exact"],
            "attribution": [-9.0, -0.1],
            "estimate": [-9.0, -0.1],
            "delta_margin": [np.nan, -0.2],
            "delta_margin_low": [np.nan, -0.3],
            "delta_margin_high": [np.nan, -0.1],
            "delta_margin_other": [np.nan, 0.0],
            "delta_margin_noncounting": [np.nan, 0.0],
        }
    )
    assert TrainEffects(table, ["lamp"]).leading("lamp", 2) == [1]  # the clear one alone
    unclear = table.assign(delta_margin_high=0.1)
    assert TrainEffects(unclear, ["lamp"]).leading("lamp", 2) == [1, 0]
    assert TrainEffects(table, ["lamp"]).effect([0], "lamp") == -9.0


def test_a_latent_that_leads_for_two_subjects_is_a_target_for_each() -> None:
    found = targets(SCREEN, train(LEADING), d_sae=6, given=(), top=2, associated=[])
    assert [(target.id, target.subject, target.train_delta_margin) for target in found if not target.is_set] == [
        ("4", "cup", 0.8),
        ("2", "cup", 0.5),
        ("0", "lamp", -3.0),
        ("4 on lamp", "lamp", 1.0),
    ]
    assert {target.selected_by for target in found} == {"sweep"}


def test_only_subjects_with_enough_held_out_videos_are_confirmed() -> None:
    many = [counting_item(f"v{number}") for number in range(6)]
    few = [replace(counting_item(f"v{number}", 1), question="How many cups?") for number in range(5)]
    train_only = [replace(item, question="How many dogs?", held_out=False) for item in many]
    assert confirmable([*many, *few, *train_only]) == (SUBJECT,)
    assert confirmable([*many[:5], *few, noncounting_item()]) == ("cup", SUBJECT)  # none has enough


def labels(**latents: tuple[int, ...]) -> list[LabelLatents]:
    return [LabelLatents(label=label, kind="object", latents=own) for label, own in latents.items()]


def test_targets_name_the_first_reason_and_end_with_the_sets() -> None:
    associated = labels(cup=(0,), tap=(3, 4, 5, 2))
    found = targets(
        SCREEN,
        train([(0, "lamp", -1.0, 0.0, 0.0), (0, "cup", 0.0, 0.0, 0.0)]),
        d_sae=6,
        given=(5, 1),
        top=2,
        associated=associated,
    )
    assert [(target.id, target.selected_by) for target in found] == [
        ("5", "given"),  # although it never fires
        ("1", "given"),
        ("0", "sweep"),
        ("3", "associated"),
        ("set: tap", "associated"),  # a single latent is no set
        ("set", "sweep"),
    ]
    assert found[-2].latents == (3, 4, 2)
    assert found[-1].latents == (0, 4, 2)


def test_an_associated_latent_that_never_fires_here_is_left_out() -> None:
    found = targets(SCREEN, train(), d_sae=6, given=(), top=0, associated=labels(cup=(5, 1), tap=(3, 5)))
    assert [target.id for target in found if not target.is_set] == ["3"]
    assert [target.id for target in found if target.label] == []


def test_a_latent_beyond_the_sae_is_refused() -> None:
    with pytest.raises(UserError, match=r"--latents 6 does not exist.*0 to 5"):
        targets(SCREEN, train(), d_sae=6, given=(6,), top=0, associated=[])


def test_two_kinds_with_a_label_of_one_name_have_sets_of_their_own() -> None:
    associated = [
        LabelLatents(label="tap", kind="object", latents=(0, 1)),
        LabelLatents(label="tap", kind="sound", latents=(2, 3)),
        LabelLatents(label="cup", kind="object", latents=(3, 4)),
        LabelLatents(label="tap (sound)", kind="object", latents=(1, 4)),
    ]
    found = targets(SCREEN, train(), d_sae=6, given=(), top=0, associated=associated)
    assert [(target.id, target.label, target.label_kind, target.latents) for target in found if target.label] == [
        ("set: tap (object)", "tap", "object", (0, 1)),
        ("set: tap (sound)", "tap", "sound", (2, 3)),
        ("set: cup", "cup", "object", (3, 4)),
        ("set: tap (sound) again", "tap (sound)", "object", (1, 4)),
    ]
