"""The whole stage on a tiny random model: resumable, deterministic, complete, and clear about bad input."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ask import opened as opened_module
from ask.config import ProfileConfig
from ask.profile import run_profile
from ask.reading import picked_site
from ask.tables import BASELINES, ITEMS, PROFILE
from collect.artefact.folder import read_table
from collect.artefact.stage import write_summary
from collect.errors import UserError
from collect.reading import ActivationStore
from demo.vlm.architecture import save_untrained
from steer import run as module
from steer.config import SteerConfig
from steer.mechanism.tables import MECHANISM_TABLES, MECHANISMS
from steer.run import steer
from steer.tables import (
    CLAIMS,
    CONTROLS,
    EFFECTS,
    LATENT_SUBJECTS,
    SCREEN,
    SCREENS,
    SUMMARY,
    SWEEP,
    TARGET_SUBJECTS,
    TARGETS,
)
from tests.small_run import D_SAE, SAE_NAME, SITE, save_random_sae
from tests.steer.test_targets import write_associations
from tests.train_sae.lens_saes import save_lens_sae
from train_sae.quality.config import EvaluateConfig
from train_sae.quality.splice import evaluate

TABLES = {
    "items": ITEMS,
    "baselines": BASELINES,
    "screen": SCREEN,
    "sweep": SWEEP,
    "screens": SCREENS,
    "latent_subjects": LATENT_SUBJECTS,
    "targets": TARGETS,
    "effects": EFFECTS,
    "controls": CONTROLS,
    "target_subjects": TARGET_SUBJECTS,
    "summary": SUMMARY,
    "claims": CLAIMS,
}
FURTHER = {**MECHANISM_TABLES, "mechanisms": MECHANISMS}
"""Without rows where no latent moves the counts, as with this random SAE."""


def config(run: Path, **changes: Any) -> SteerConfig:
    arguments: dict[str, Any] = {"top": 1, "controls": 2, "device": "cpu"}
    return SteerConfig(run=run, **(arguments | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, collected: Path) -> Path:
    run = shutil.copytree(collected, tmp_path_factory.mktemp("finished") / "run")
    return steer(config(Path(run)))


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / f"{name}.parquet").read_bytes() for name in TABLES}


def test_all_tables_are_there_with_their_columns(finished: Path) -> None:
    assert finished.name == SAE_NAME
    for name, schema in TABLES.items():
        table = read_table(finished / f"{name}.parquet")
        assert list(table.columns) == schema.names, name
        assert len(table) > 0, name
    for name, schema in FURTHER.items():
        assert list(read_table(finished / f"{name}.parquet", schema).columns) == schema.names, name
    assert not (finished / "parts").exists()


def test_the_tables_hang_together(finished: Path) -> None:
    tables = {name: read_table(finished / f"{name}.parquet") for name in TABLES}
    items, effects, summary, screen = (tables[name] for name in ("items", "effects", "summary", "screen"))
    assert len(items) == 8 * 3
    assert items["hash"].nunique() == len(items)
    held_out = items[items["held_out"]]
    assert set(effects["item"]) <= set(held_out["item"])  # train videos are for selection only
    assert list(summary["target"].unique()) == list(tables["targets"]["target"])
    assert len(summary) == 2 * len(tables["targets"])  # two operations
    assert summary["target"].tolist()[-1] == "set"
    assert len(screen) == D_SAE
    chosen = screen.dropna(subset="selected_by")
    single = summary[summary["target"] != "set"]
    assert sorted(chosen["latent"]) == sorted({int(latents[0]) for latents in single["latents"]})
    assert set(single["subject"]) <= {"red ball", "tap"}
    # The mean over held-out videos, from the rows of the effects, untouched items as zeros.
    for _, row in summary.iterrows():
        counting = held_out[held_out["subject"] == row["subject"]].set_index("item")
        own = effects[(effects["target"] == row["target"]) & (effects["operation"] == row["operation"])]
        deltas = own.set_index("item")["delta_margin"].reindex(counting.index).fillna(0.0)
        assert row["delta_margin"] == pytest.approx(deltas.groupby(counting["video_id"]).mean().mean(), abs=1e-9)
    assert np.allclose(effects["delta_accuracy"], effects["wrong_to_right"] - effects["right_to_wrong"])
    # One magnitude (ablation and doubling), three families of two.
    assert (tables["controls"].groupby("target").size() == 6).all()
    claims = tables["claims"]
    assert list(zip(claims["target"], claims["operation"], strict=True)) == list(
        zip(summary["target"], summary["operation"], strict=True)
    )
    of_target = tables["target_subjects"]
    assert len(of_target) == len(summary) * 2
    merged = of_target[of_target["is_chosen"]].merge(summary, on=["target", "operation"], suffixes=("", "_summary"))
    assert (merged["delta_margin"] == merged["delta_margin_summary"]).all()


def test_every_latent_that_fires_in_a_train_video_is_swept(finished: Path) -> None:
    swept, items = read_table(finished / "sweep.parquet"), read_table(finished / "items.parquet")
    train = items[~items["held_out"]]
    assert set(swept["item"]) == set(train["item"])
    assert set(swept["method"]) == {"exact"}
    assert not swept.duplicated(["latent", "item"]).any()
    by_latent = read_table(finished / "latent_subjects.parquet")
    own = by_latent[by_latent["scope"] == "subject"]
    assert len(own) == swept["latent"].nunique() * 2
    # The mean over train videos, from the rows of the sweep, untouched items as zeros.
    for _, row in own.iterrows():
        asked = train[train["subject"] == row["name"]].set_index("item")
        deltas = (
            swept[swept["latent"] == row["latent"]].set_index("item")["delta_margin"].reindex(asked.index).fillna(0)
        )
        assert row["delta_margin"] == pytest.approx(deltas.groupby(asked["video_id"]).mean().mean(), abs=1e-9)


def test_the_screen_and_the_sweep_agree_on_the_small_effects_of_a_random_model(finished: Path) -> None:
    swept = read_table(finished / "sweep.parquet")
    # One-sided, so that the second-order part stays: only the ranks must agree.
    assert swept["delta_margin"].corr(swept["attribution"], method="spearman") > 0.8


def test_without_a_budget_every_row_says_that_it_is_the_gradients(run_folder: Path) -> None:
    folder = steer(config(run_folder, budget_minutes=0.0, controls=0))
    swept, by_latent = read_table(folder / "sweep.parquet"), read_table(folder / "latent_subjects.parquet")
    assert set(swept["method"]) == set(by_latent["method"]) == {"gradient"}
    assert swept["delta_margin"].isna().all()
    assert by_latent["delta_margin"].isna().all()
    assert by_latent["attribution"].notna().all()
    assert len(read_table(folder / "summary.parquet")) > 0  # the estimates choose


def test_a_finished_stage_does_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a finished stage worked again")

    monkeypatch.setattr(module, "answer_and_screen", fail)
    monkeypatch.setattr(module, "run_targets", fail)
    assert steer(config(finished.parents[1])) == finished


def test_the_same_seed_gives_the_same_tables(finished: Path, run_folder: Path) -> None:
    assert contents(steer(config(run_folder))) == contents(finished)


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [3, 5, 8])
def test_a_killed_run_goes_on_and_ends_with_the_same_tables(
    finished: Path, run_folder: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = module.write_table

    def write_some(path: Path, frame: pd.DataFrame, schema: Any) -> None:
        if len(written) == after:
            raise Killed
        written.append(path.name)
        write(path, frame, schema)

    monkeypatch.setattr(module, "write_table", write_some)
    with pytest.raises(Killed):
        steer(config(run_folder))
    monkeypatch.setattr(module, "write_table", write)
    folder = steer(config(run_folder))
    assert contents(folder) == contents(finished)
    assert not (folder / "parts").exists()


def test_other_arguments_on_resume_are_refused(finished: Path) -> None:
    with pytest.raises(UserError, match="controls = 2 \\(now 3\\)"):
        steer(config(finished.parents[1], controls=3))


def test_associations_that_came_later_are_noticed(run_folder: Path) -> None:
    steer(config(run_folder, controls=0))
    folder = run_folder / "features" / SAE_NAME
    folder.mkdir(parents=True)
    long = "Ein Becher 杯子 " * 40
    rows = [("object", "cup/mug", 9, "train", 0.9), ("object", "cup/mug", 5, "train", 0.8)]
    rows += [("sound", "cup/mug", 7, "train", 0.9), ("sound", "cup/mug", 2, "train", 0.8)]
    rows += [("action", long, 4, "train", 0.9), ("action", long, 3, "train", 0.8)]
    write_associations(folder, rows)
    assert steer(config(run_folder, controls=0))  # the features stage is not finished: nothing is taken from it
    write_summary(folder, {}, ["associations.parquet"])
    with pytest.raises(UserError, match="input associations"):
        steer(config(run_folder, controls=0))
    shutil.rmtree(run_folder / "steer")
    summary = read_table(steer(config(run_folder, controls=0)) / "summary.parquet").set_index("target")
    assert summary.loc["9", "selected_by"].tolist() == ["associated"] * 2
    for name, expected in (("cup/mug (object)", [9, 5]), ("cup/mug (sound)", [7, 2]), (long, [4, 3])):
        assert [list(latents) for latents in summary.loc[f"set: {name}", "latents"]] == [expected] * 2


def test_a_given_latent_is_run_even_if_nothing_else_is(run_folder: Path) -> None:
    folder = steer(config(run_folder, latents=(5,), top=0, controls=0, operations=("ablate",)))
    summary = read_table(folder / "summary.parquet")
    assert summary["target"].tolist() == ["5"]
    assert summary["selected_by"].tolist() == ["given"]
    assert summary["confirmed"].isna().all()
    assert set(read_table(folder / "claims.parquet")["claim"]) <= {
        "no controls",
        "no effect on the margin",
        "too few videos",
    }


def test_an_sae_of_another_site_is_refused(run_folder: Path) -> None:
    store = ActivationStore.open(run_folder / "activations")
    save_random_sae(run_folder / "sae" / "other", store, "resid/1")
    with pytest.raises(UserError, match=f"trained on site resid/1 and .* does not hold it \\({SITE}\\)"):
        steer(config(run_folder, sae="other"))


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("topk", {"rescale_acts_by_decoder_norm": True, "apply_b_dec_to_input": False}),
        ("standard", {"normalize_activations": "layer_norm"}),
        ("abstopk", {"normalize_activations": "constant_norm_rescale"}),
        ("temporal", {}),
    ],
)
def test_somebody_elses_sae_from_a_folder_outside_of_the_run(
    architecture: str, settings: dict[str, Any], run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ActivationStore.open(run_folder / "activations")
    shutil.rmtree(run_folder / "sae")
    save_lens_sae(
        tmp_path / "elsewhere" / "lens", architecture, d_in=store.d_in(SITE), metadata={}, dtype="bfloat16", **settings
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    before = sorted(Path("lens").iterdir())
    # Random weights reconstruct nothing, so the site is named; it is the only one.
    small = {"top": 1, "controls": 1, "items": (2, 1)}
    folder = steer(config(run_folder, sae=f"lens@{SITE}", **small))
    effects = read_table(folder / "effects.parquet")
    assert folder.parent == run_folder / "steer"
    assert folder.name.startswith("lens-")
    assert np.isfinite(effects["delta_margin"]).all()
    assert (effects["mean_norm"] > 0).any()
    path = evaluate(EvaluateConfig(run=run_folder, sae="lens", tokens=64, questions=2, device="cpu"))
    assert path == run_folder / "sae" / folder.name / "evaluation.json"
    assert sorted(Path("lens").iterdir()) == before  # nothing is written to what is somebody else's
    monkeypatch.chdir(tmp_path)
    assert steer(config(run_folder, sae=f"elsewhere/lens@{SITE}", top=1, controls=1, items=(2, 1))) == folder


def test_a_store_of_another_model_is_refused(
    run_folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save_untrained(tmp_path / "other", seed=1)
    load = opened_module.load_vlm
    monkeypatch.setattr(opened_module, "load_vlm", lambda _name, **kwargs: load(str(other), **kwargs))
    with pytest.raises(UserError, match=f"holds activations of another model than the one in {model_folder}"):
        steer(config(run_folder))


def test_no_counting_questions_is_the_users_problem(run_folder: Path) -> None:
    with pytest.raises(UserError, match="no counting question"):
        steer(config(run_folder, tasks=("event counting",)))


def test_a_run_without_activations_or_sae_is_refused(tmp_path: Path, run_folder: Path) -> None:
    with pytest.raises(UserError, match=r"activations.config\.json does not exist"):
        steer(config(tmp_path / "nothing"))
    shutil.rmtree(run_folder / "sae")
    with pytest.raises(UserError, match="holds no SAE"):
        steer(config(run_folder))


def test_a_changed_video_is_refused(run_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(data_folder, tmp_path / "data"))
    (data / "videos" / "video_6.mp4").write_bytes((data / "videos" / "video_7.mp4").read_bytes())
    with pytest.raises(UserError, match="has other videos under the ids of those that"):
        steer(config(run_folder, data=data))
    path = run_folder / "activations" / "config.json"
    content = json.loads(path.read_text())
    del content["inputs"]["data"], content["checksum"]  # as if the files were of one size
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"video_6\.mp4 gives other residuals than those stored"):
        steer(config(run_folder, data=data))


def test_the_profile_of_a_real_model(model_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"data": data_folder, "model": str(model_folder), "out": tmp_path, "device": "cpu"}
    folder = run_profile(ProfileConfig(frames="2", items=6, **arguments))
    table = read_table(folder / "profile.parquet")
    assert list(table.columns) == PROFILE.names
    total = table[table["kind"] == "all counting"].set_index("site")
    assert total.index.tolist() == ["projector", "resid/0", "resid/1", "resid/2"]
    assert total.loc["resid/2", "fall"] == pytest.approx(0.0, abs=1e-5)  # after the last layer nothing is read
    assert picked_site(tmp_path) in total.index
    before = (folder / "profile.parquet").stat().st_mtime_ns
    run_profile(ProfileConfig(frames="2", items=6, **arguments))
    assert (folder / "profile.parquet").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="items = 6"):
        run_profile(ProfileConfig(frames="2", items=3, **arguments))
