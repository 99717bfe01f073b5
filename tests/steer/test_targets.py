"""Selection: the screen's top, one sign for its set, labels by turns, and no latent twice."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from collect.artefact.folder import write_table
from collect.errors import UserError
from features.catalogue import ASSOCIATIONS
from steer.targets import LabelLatents, by_label, by_predicted_cost, by_screen, targets
from tests.steer.finished_run import association_row

SCREEN = pd.DataFrame(
    {
        "latent": np.arange(6),
        "status": ["screened"] * 5 + ["never active"],
        "z_train": [-3.0, 4.0, -1.0, 0.5, -3.0, np.nan],
    }
)


def test_the_screens_top_is_by_size_with_ties_to_the_smaller_latent() -> None:
    assert by_screen(SCREEN, 3) == [1, 0, 4]
    assert by_screen(SCREEN, 9) == [1, 0, 4, 2, 3]


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


def labels(**latents: tuple[int, ...]) -> list[LabelLatents]:
    return [LabelLatents(label=label, kind="object", latents=own) for label, own in latents.items()]


def test_targets_name_the_first_reason_and_end_with_the_sets() -> None:
    associated = labels(cup=(0,), tap=(3, 4, 5, 2))
    found = targets(SCREEN, d_sae=6, given=(5, 1), top=2, associated=associated, set_size=2)
    assert [(target.id, target.selected_by) for target in found] == [
        ("5", "given"),  # although it never fires
        ("1", "given"),
        ("0", "screen"),
        ("3", "associated"),
        ("set: tap", "associated"),  # a single latent is no set
        ("set", "screen"),
    ]
    assert found[-2].latents == (3, 4)
    assert found[-1].latents == (0, 4)


def test_an_associated_latent_that_never_fires_here_is_left_out() -> None:
    found = targets(SCREEN, d_sae=6, given=(), top=0, associated=labels(cup=(5, 1), tap=(3, 5)), set_size=3)
    assert [target.id for target in found if not target.is_set] == ["3"]
    assert [target.id for target in found if target.label] == []


def test_a_latent_beyond_the_sae_is_refused() -> None:
    with pytest.raises(UserError, match=r"--latents 6 does not exist.*0 to 5"):
        targets(SCREEN, d_sae=6, given=(6,), top=0, associated=[], set_size=0)


def test_two_kinds_with_a_label_of_one_name_have_sets_of_their_own() -> None:
    associated = [
        LabelLatents(label="tap", kind="object", latents=(0, 1)),
        LabelLatents(label="tap", kind="sound", latents=(2, 3)),
        LabelLatents(label="cup", kind="object", latents=(3, 4)),
        LabelLatents(label="tap (sound)", kind="object", latents=(1, 4)),
    ]
    found = targets(SCREEN, d_sae=6, given=(), top=0, associated=associated, set_size=2)
    assert [(target.id, target.label, target.label_kind, target.latents) for target in found if target.label] == [
        ("set: tap (object)", "tap", "object", (0, 1)),
        ("set: tap (sound)", "tap", "sound", (2, 3)),
        ("set: cup", "cup", "object", (3, 4)),
        ("set: tap (sound) again", "tap (sound)", "object", (1, 4)),
    ]
