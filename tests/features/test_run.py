from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from collect.artefact.config_json import read_config
from collect.artefact.folder import read_object, read_table, write_json
from collect.errors import UserError
from collect.reading import ActivationStore
from features.codes import Codes
from features.config import FeaturesConfig
from features.reading import read_features_table
from features.run import features
from tests.features.conftest import (
    BALL,
    CLAP,
    CUBE,
    D_IN,
    D_SAE,
    NOISE,
    SITE,
    PlantedVideo,
    planted_sae,
    write_data,
    write_run,
)
from tests.train_sae.lens_saes import edit_cfg, lens_outputs, save_lens_sae
from train_sae.lens.export import save_sae

TABLES = ("catalogue", "associations", "exemplars")
WITH_VIDEOS = 30


@pytest.fixture(scope="module")
def run(planted: list[PlantedVideo], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    data = write_data(folder / "data", planted, with_videos=WITH_VIDEOS)
    return write_run(folder / "run", planted, data)


def config_of(run: Path) -> FeaturesConfig:
    return FeaturesConfig(
        run=run,
        min_videos=5,
        permutations=199,
        bootstraps=100,
        controls=16,
        media=2,
        exemplars=3,
        options=("min_explained=0.1",),
    )


@pytest.fixture(scope="module")
def finished(run: Path) -> Path:
    return features(config_of(run))


def copy_of(run: Path, folder: Path) -> Path:
    """The same run, before the stage."""
    for name in ("activations", "sae"):
        shutil.copytree(run / name, folder / name)
    return folder


def test_the_planted_latents_are_labelled(finished: Path) -> None:
    catalogue = read_table(finished / "catalogue.parquet")
    labelled = catalogue[catalogue["labelled"]]
    assert dict(zip(labelled["latent"], labelled["top_label"], strict=True)) == {
        BALL: "red ball",
        CUBE: "blue cube",
        CLAP: "clapping",
    }
    summary = json.loads((finished / "summary.json").read_text())
    assert (summary["n_latents"], summary["n_labelled"], summary["n_dead"]) == (D_SAE, 3, 4)
    best = {label["label"]: label["best_latent"] for label in summary["labels"]}
    assert {name: best[name] for name in ("red ball", "blue cube", "clapping", "waving")} == {
        "red ball": BALL,
        "blue cube": CUBE,
        "clapping": CLAP,
        "waving": None,
    }
    assert summary["baseline"] is None


def test_an_sae_is_compared_with_a_baseline(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path / "run")
    # The baseline reads the planted directions each half from two latents, so that none follows an object alone.
    sae = planted_sae(rotated=True)
    mixed = replace(sae, W_enc=0.5 * (sae.W_enc + sae.W_enc.roll(1, dims=1)), threshold=0.4 * sae.threshold)
    save_sae(copy / "sae" / "frozen", mixed, torch.full((D_SAE,), 0.1))
    done = features(replace(config_of(copy), sae="planted", baseline="frozen"))
    compared = json.loads((done / "summary.json").read_text())["baseline"]
    assert compared["sae"] == "frozen"
    assert compared["best_correlation_more"] > 0.05
    assert 0 < compared["n_labels_better"] <= compared["n_labels"]
    catalogue = read_table(done / "catalogue.parquet")
    assert catalogue["baseline_auroc_p95"][BALL] < catalogue["top_auroc"][BALL]
    assert (done / "baseline" / "codes.zarr").is_dir()


@pytest.mark.parametrize(("baseline", "message"), [("planted", "is the SAE itself"), ("gone", "gone")])
def test_a_baseline_that_cannot_be_compared_is_refused(run: Path, tmp_path: Path, baseline: str, message: str) -> None:
    copy = copy_of(run, tmp_path / "run")
    with pytest.raises(UserError, match=message):
        features(replace(config_of(copy), sae="planted", baseline=baseline))


def test_pictures_are_drawn_of_the_best_latents_where_the_video_is_there(finished: Path) -> None:
    exemplars = read_table(finished / "exemplars.parquet")
    drawn = exemplars[exemplars["media"] != ""]
    assert set(drawn["latent"]) <= {BALL, CUBE, CLAP}
    assert drawn["latent"].nunique() == 2
    assert (drawn["video_id"] < f"video_{WITH_VIDEOS:03d}").all()
    for row in drawn.itertuples():
        with Image.open(finished / str(row.media)) as strip, Image.open(finished / str(row.media_frame)) as frame:
            assert strip.width > 3 * strip.height
            assert frame.size == (640, 640)
    assert len(list((finished / "media").rglob("*.jpg"))) == 2 * len(drawn)


def test_the_exemplars_frame_shows_what_the_latent_fires_on(finished: Path) -> None:
    exemplars = read_table(finished / "exemplars.parquet")
    row = exemplars[(exemplars["media"] != "") & (exemplars["latent"] == BALL)].iloc[0]
    with Image.open(finished / row["media_frame"]) as image:
        pixels = np.asarray(image).astype(int)
    inside = pixels[int(640 * row["y1"]) + 60 : int(640 * row["y2"]) - 60, int(640 * row["x1"]) + 60 :][:, :40]
    # The ball is red, and so is the heat on it; all else is dimmed.
    assert inside[..., 0].mean() > 180
    assert inside[..., 2].mean() < 80


def test_a_finished_stage_says_so_and_does_nothing(finished: Path, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    with caplog.at_level(logging.INFO):
        assert features(config_of(run)) == finished
    assert "is finished: nothing to do" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_another_run_with_the_same_seed_writes_the_same_bytes(finished: Path, run: Path, tmp_path: Path) -> None:
    again = features(config_of(copy_of(run, tmp_path / "run")))
    for name in TABLES:
        assert (again / f"{name}.parquet").read_bytes() == (finished / f"{name}.parquet").read_bytes()
    assert (again / "summary.json").read_bytes() == (finished / "summary.json").read_bytes()


def test_permutations_that_go_on_to_the_end_change_no_decision(
    finished: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.association.judgement.enough_exceedances", lambda n, _: n + 1)
    full = read_table(features(config_of(copy_of(run, tmp_path / "run"))) / "associations.parquet")
    early = read_table(finished / "associations.parquet")
    np.testing.assert_array_equal(early["holds"], full["holds"])
    np.testing.assert_array_equal(early["q_value"] < 0.05, full["q_value"] < 0.05)


def test_an_interrupted_stage_is_completed_to_the_same_tables(
    finished: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_of(run, tmp_path / "run")

    def interrupt(*_: object, **__: object) -> pd.DataFrame:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("features.run.draw_exemplars", interrupt)
        with pytest.raises(KeyboardInterrupt):
            features(config_of(copy))
    resumed = features(config_of(copy))
    for name in TABLES:
        assert (resumed / f"{name}.parquet").read_bytes() == (finished / f"{name}.parquet").read_bytes()


def test_other_settings_in_the_same_folder_are_refused(finished: Path, run: Path) -> None:
    with pytest.raises(UserError, match=r"permutations = 199 \(now 50\)"):
        features(replace(config_of(run), permutations=50))
    assert (finished / "summary.json").exists()


def test_changed_settings_of_an_sae_without_a_summary_are_noticed(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path / "run")
    folder = save_lens_sae(tmp_path / "lens", "topk", d_in=D_IN, d_sae=40, metadata={})
    config = replace(config_of(copy), sae=str(folder), media=0, permutations=19, bootstraps=20)
    features(config)
    edit_cfg(folder, k=1)
    with pytest.raises(UserError, match=r"begun with other settings, input sae_cfg = "):
        features(config)


def test_an_sae_of_another_model_is_refused(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path / "run")
    save_sae(copy / "sae" / "other", planted_sae(fingerprint="another"), torch.full((D_SAE,), 0.1))
    with pytest.raises(UserError, match="trained on another model"):
        features(replace(config_of(copy), sae="other"))
    assert not (copy / "features").exists()


def test_an_sae_of_a_site_that_was_not_collected_is_refused(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path / "run")
    sae = planted_sae()
    save_sae(copy / "sae" / "other", replace(sae, metadata={"hook_name": "resid/7", "k": 1}), torch.full((D_SAE,), 0.1))
    with pytest.raises(UserError, match=r"trained on site resid/7 and .* does not hold it"):
        features(replace(config_of(copy), sae="other"))


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("topk", {"rescale_acts_by_decoder_norm": True, "dtype": "float16"}),
        ("gated", {"normalize_activations": "layer_norm"}),
        ("abstopk", {}),
        ("temporal", {"dtype": "bfloat16"}),
        ("jumprelu_skip_transcoder", {}),
    ],
)
def test_codes_of_somebody_elses_sae_are_those_of_saelens(
    architecture: str, settings: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    folder = save_lens_sae(tmp_path / "lens", architecture, d_in=D_IN, d_sae=40, metadata={}, **settings)
    copy = copy_of(run, tmp_path / "run")
    done = features(replace(config_of(copy), sae=str(folder), batch_size=100, media=0))
    store = ActivationStore.open(copy / "activations")
    codes = Codes.open(done / "codes.zarr").rows(0, store.n_tokens).toarray()
    x = store.read(SITE, 0, store.n_tokens).float()
    parts = [x[v.row_start : v.row_stop] for v in store.videos] if architecture == "temporal" else [x]
    f = torch.cat([lens_outputs(folder, part, "float32")[0] for part in parts]).numpy()
    expected = np.concatenate([np.maximum(f, 0), np.maximum(-f, 0)], axis=1) if architecture == "abstopk" else f
    np.testing.assert_allclose(codes, expected, rtol=1e-3, atol=1e-3)


def test_combinations_are_a_table_of_their_own_where_they_are_asked_for(
    finished: Path, run: Path, tmp_path: Path
) -> None:
    assert not (finished / "combinations.parquet").exists()
    config = config_of(copy_of(run, tmp_path / "run"))
    done = features(replace(config, options=(*config.options, "combinations=2")))
    table = read_features_table(done, "combinations")
    assert table is not None
    assert set(table["latent"]) <= {BALL, CUBE, CLAP, NOISE}
    assert "combinations.parquet" in json.loads((done / "summary.json").read_text())["files"]
    for name in TABLES:
        assert (done / f"{name}.parquet").read_bytes() == (finished / f"{name}.parquet").read_bytes()


def test_annotations_that_are_gone_are_asked_for(planted: list[PlantedVideo], tmp_path: Path) -> None:
    write_run(tmp_path / "run", planted[:4], tmp_path / "gone")
    with pytest.raises(UserError, match="which is not there any more: give the folder where it is now with --data"):
        features(config_of(tmp_path / "run"))


def test_a_run_without_store_or_sae_is_a_user_error(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UserError, match="run `video-sae collect`"):
        features(FeaturesConfig(run=tmp_path))
    shutil.copytree(run / "activations", tmp_path / "activations")
    with pytest.raises(UserError, match="holds no SAE"):
        features(FeaturesConfig(run=tmp_path))


def test_an_unusable_device_is_a_user_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--device nonsense is not available here"):
        features(replace(config_of(copy_of(run, tmp_path / "run")), device="nonsense"))


def test_videos_without_annotations_give_a_catalogue_without_labels(
    planted: list[PlantedVideo], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_data(tmp_path / "data", planted[:4], with_videos=2)
    (data / "annotations" / "all.json").unlink()
    write_run(tmp_path / "run", planted[:4], data)
    folder = features(config_of(tmp_path / "run"))
    catalogue = read_table(folder / "catalogue.parquet")
    assert not catalogue["labelled"].any()
    assert catalogue["n_tokens_active"].sum() > 0
    assert len(read_table(folder / "associations.parquet")) == 0
    assert (read_table(folder / "exemplars.parquet")["media"] != "").any()
    assert "latents are not associated with anything" in caplog.text


def test_a_second_sae_does_not_lock_the_first_one_s_results(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = copy_of(run, tmp_path / "run")
    small = replace(config_of(copy), permutations=9, bootstraps=9, controls=2, media=0, data=run.parent / "data")
    folder = features(small)
    (first,) = (path.name for path in (copy / "sae").iterdir())
    assert read_config(folder, "features")["arguments"]["sae"] == first
    save_sae(copy / "sae" / "second", planted_sae(rotated=True), torch.full((D_SAE,), 0.1))
    with caplog.at_level(logging.INFO):
        assert features(replace(small, sae=first)) == folder
    assert "is finished: nothing to do" in caplog.text
    # A folder that an earlier version wrote.
    content = read_object(folder / "config.json", "")
    write_json(folder / "config.json", {**content, "arguments": {**content["arguments"], "sae": None}})
    assert features(replace(small, sae=first)) == folder
    with pytest.raises(UserError, match=r"seed = 0 \(now 1\): give the earlier ones to go on there, or delete the"):
        features(replace(small, sae=first, seed=1))
