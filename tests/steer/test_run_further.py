"""The stage beyond ablations at all visual tokens: further analyses, swaps and narrow scopes."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from collect.artefact.folder import read_table
from steer import run as module
from steer.config import ANALYSES
from steer.reading import read_effects_tables
from steer.run import steer
from steer.targets import Target
from tests.small_run import SAE_NAME
from tests.steer.test_run import FURTHER, config


def test_further_analyses_run_in_the_stage_and_go_on_where_they_were(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def every_single(chosen: list[Target], summary: pd.DataFrame) -> list[Target]:
        assert len(summary)
        return [target for target in chosen if not target.is_set]

    monkeypatch.setattr(module, "moving", every_single)
    again = Path(shutil.copytree(run_folder, tmp_path / "again"))
    small = {"controls": 1, "associated": 0, "analyses": ANALYSES}
    whole = steer(config(run_folder, **small))
    found = {name: read_table(whole / f"{name}.parquet", schema) for name, schema in FURTHER.items()}
    assert len(found["doses"]) == 5 * found["doses"]["target"].nunique() > 0
    assert len(found["rivals"])
    assert len(found["sets"])
    assert len(found["pairs"])
    assert len(found["swaps"])
    finish = module.finish

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        steer(config(again, **small))
    assert list((again / "steer" / SAE_NAME / "parts").glob("rivals-*"))
    monkeypatch.setattr(module, "finish", finish)
    folder = steer(config(again, **small))
    for name in FURTHER:
        assert (folder / f"{name}.parquet").read_bytes() == (whole / f"{name}.parquet").read_bytes(), name


def test_swaps_and_narrow_scopes_run_beside_their_controls(run_folder: Path) -> None:
    operations = ("ablate", "swap", "ablate@event", "add:0.25@last", "scale:2@frames:0-0")
    folder = steer(config(run_folder, controls=1, associated=0, operations=operations, analyses=()))
    effects, controls = read_table(folder / "effects.parquet"), read_table(folder / "controls.parquet")
    summary = read_table(folder / "summary.parquet")
    assert set(summary["operation"]) == set(operations)
    assert {"ablate", "swap", "ablate@event", "add:0.25@last"} <= set(effects["operation"])
    assert np.isfinite(effects["delta_margin"]).all()
    assert set(controls["magnitude"]) == {
        *("scale 1", "swap", "scale 1@event", "add 0.25@last", "scale 1@frames:0-0"),
    }
    size = effects.groupby("operation")["n_tokens_edited"].max()
    assert size["ablate@event"] <= size["ablate"]
    report = read_effects_tables(folder)[0]
    assert set(report["claims"]["operation"]) == set(operations)
