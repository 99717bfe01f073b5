"""Selection: the screen's top, one sign for the set, associations by turns, and no latent twice."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from collect.errors import UserError
from steer.selection import by_association, by_predicted_cost, by_screen, targets

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


def test_every_label_gives_its_best_latent_before_any_gives_a_second(tmp_path: Path) -> None:
    rows = [
        ("object", "red ball", 1, "train", 0.99),
        ("object", "red ball", 2, "train", 0.98),
        ("object", "cup", 3, "train", 0.80),
        ("action", "tap", 1, "train", 0.70),
        ("action", "tap", 4, "held_out", 1.00),  # held-out rows never select
    ]
    table = pd.DataFrame(rows, columns=["kind", "label", "latent", "split", "auroc"])
    table.to_parquet(tmp_path / "associations.parquet")
    assert by_association(tmp_path, 3) == [1, 3, 2]
    assert by_association(tmp_path, 0) == []
    assert by_association(tmp_path / "missing", 3) == []


def test_targets_name_the_first_reason_and_end_with_the_set() -> None:
    found = targets(SCREEN, d_sae=6, given=(5, 1), top=2, associated=[0, 3, 5], set_size=2)
    assert [(target.name, target.selected_by) for target in found] == [
        ("5", "given"),  # although it never fires
        ("1", "given"),
        ("0", "screen"),
        ("3", "associated"),
        ("set", "set"),
    ]
    assert found[-1].latents == (0, 4)


def test_an_associated_latent_that_never_fires_here_is_left_out() -> None:
    found = targets(SCREEN, d_sae=6, given=(), top=0, associated=[5, 3], set_size=0)
    assert [target.name for target in found] == ["3"]


def test_a_latent_beyond_the_sae_is_refused() -> None:
    with pytest.raises(UserError, match=r"--latents 6 does not exist.*0 to 5"):
        targets(SCREEN, d_sae=6, given=(6,), top=0, associated=[], set_size=0)
