"""The sweep: what it runs first, what it leaves when its time ends, and what a killed one goes on with."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from ask.cases import Case
from collect.artefact.folder import read_table
from steer import sweep as module
from steer.codes import CodedCases, VideoCodes
from steer.effects import Editor, effects
from steer.screens import budget, plan
from steer.screens.estimates import with_estimates
from steer.screens.gradient import Attribution
from steer.screens.passes import Passes
from steer.screens.plan import order_of
from steer.sweep import screened_rows, sweep
from steer.tables import SWEEP
from tests.steer.test_effects import ABLATE, editor, target
from tests.steer.toy import N_VISUAL, counting_item, noncounting_item, toy_case, visual


class Toys(CodedCases):
    """Two train videos of the toy."""

    def __init__(self, own: Editor) -> None:
        self._made: dict[str, tuple[Case, VideoCodes]] = {}
        for number, video_id in enumerate(("a", "b")):
            noise = torch.rand(N_VISUAL, 4, generator=torch.Generator().manual_seed(number))
            items = (counting_item(video_id, held_out=False), noncounting_item(video_id, held_out=False))
            case = toy_case(own.model.vlm, visual(torch.tensor([0.0, 1.0, 2.0, 3.0 + number]), noise), items)
            self._made[video_id] = (case, VideoCodes.of(own.sae, case.sequences.visual))

    def __getitem__(self, video_id: str) -> tuple[Case, VideoCodes]:
        return self._made[video_id]


def screened(own: Editor, toys: Toys) -> pd.DataFrame:
    norms = own.sae.decoder_norm.float()
    estimates = [Attribution(torch.arange(8.0), torch.arange(8.0)), Attribution(torch.zeros(8), torch.zeros(8))]
    return pd.concat([screened_rows(*toys[video_id], norms, estimates) for video_id in ("a", "b")], ignore_index=True)


def assert_equal(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Whether two tables are equal, a missing subject read from a file or not."""
    texts = ["subject", "chosen_as"]
    one, other = (each.assign(**{name: each[name].fillna("") for name in texts}) for each in (one, other))
    pd.testing.assert_frame_equal(one, other, check_dtype=False)


def test_every_row_is_that_of_the_exact_run(tmp_path: Path) -> None:
    own = editor(scale=0.5)
    toys = Toys(own)
    found = sweep(tmp_path, Passes(own, toys), screened(own, toys), budget_s=1e9, seed=0)
    assert set(found["method"]) == {"exact"}
    assert set(found["chosen_as"]) == {"all"}
    assert set(found["latent"]) == {0, 4, 5, 6}  # evidence and noise; the others are silent
    for latent in (0, 4):
        for video_id in ("a", "b"):
            expected = {row["item"]: row for row in effects(own, *toys[video_id], target(latent), [ABLATE])}
            for row in found[(found["latent"] == latent) & (found["video_id"] == video_id)].to_dict("records"):
                for name in ("delta_margin", "delta_accuracy", "n_tokens_edited", "mean_norm"):
                    assert row[name] == pytest.approx(expected[row["item"]][name], abs=1e-6)
    assert_equal(read_table(tmp_path / "sweep.parquet", SWEEP), found)


def test_a_sweep_ends_with_its_budget_and_says_what_it_did_not_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = editor()
    toys = Toys(own)
    monkeypatch.setattr(plan, "LEADERS_AT_ONCE", 1)
    monkeypatch.setattr(plan, "DRAWN_AT_ONCE", 0)
    ticks = iter(range(100))
    monkeypatch.setattr(budget.time, "monotonic", lambda: float(next(ticks)))  # one second a lot
    table = screened(own, toys)
    found = sweep(tmp_path, Passes(own, toys), table, budget_s=2.0, seed=0)
    method = found.groupby("latent")["method"].unique().map(list)
    first = order_of(with_estimates(table))
    assert [method[latent] for latent in first] == [["exact"], ["exact"], ["gradient"], ["gradient"]]
    assert found.loc[found["method"] == "gradient", "delta_margin"].isna().all()
    assert len(found) == len(table)


@pytest.mark.parametrize("after", [1, 3])
def test_a_killed_sweep_goes_on_and_its_earlier_time_counts(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = editor()
    toys = Toys(own)
    monkeypatch.setattr(plan, "LEADERS_AT_ONCE", 1)
    monkeypatch.setattr(plan, "DRAWN_AT_ONCE", 0)
    table = screened(own, toys)
    whole = sweep(tmp_path / "whole", Passes(own, toys), table, budget_s=1e9, seed=0)
    write, lot, n_lots = budget.write_table, module._lot, 0

    def write_some(path: Path, *arguments: object) -> None:
        if path.name == f"sweep-{after}.parquet":
            raise KeyboardInterrupt
        write(path, *arguments)

    def counted(*arguments: object) -> pd.DataFrame:
        nonlocal n_lots
        n_lots += 1
        return lot(*arguments)

    monkeypatch.setattr(budget, "write_table", write_some)
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path / "killed", Passes(own, toys), table, budget_s=1e9, seed=0)
    monkeypatch.setattr(budget, "write_table", write)
    monkeypatch.setattr(module, "_lot", counted)
    assert budget._spent(tmp_path / "killed" / "parts" / "sweep.json") > 0
    assert_equal(sweep(tmp_path / "killed", Passes(own, toys), table, budget_s=1e9, seed=0), whole)
    assert n_lots == 4 - after
    ended = sweep(tmp_path / "ended", Passes(own, toys), table, budget_s=0.0, seed=0)
    assert set(ended["method"]) == {"gradient"}
