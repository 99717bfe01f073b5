"""The whole path in small: an untrained tiny model on a dozen videos, twice."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

import demo.run
from collect.errors import UserError
from collect.reading import ActivationStore
from demo.config import DemoConfig
from demo.run import closing_table
from train_sae.reading import find_sae
from train_sae.sae import load_sae

TABLES = (
    "profile/profile.parquet",
    "features/*/catalogue.parquet",
    "features/*/associations.parquet",
    "features/*/exemplars.parquet",
    "steer/*/items.parquet",
    "steer/*/effects.parquet",
    "steer/*/controls.parquet",
    "steer/*/summary.parquet",
)


def config(out: Path) -> DemoConfig:
    return DemoConfig(out=out, videos=12, d_sae=64, k=4, epochs=2.0, workers=1, seed=4)


@pytest.fixture(scope="module")
def twice(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs with one seed; the second takes the first one's videos, which another test shows to be reproducible."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo.run, "WEIGHTS", tiny_vlm)
        patch.setattr(demo.run, "MIN_VIDEOS", 2)
        page = demo.run.demo(config(folder / "a"))
        assert page == folder / "a" / "report" / "index.html"
        shutil.copytree(folder / "a" / "data", folder / "b" / "data")
        demo.run.demo(config(folder / "b"))
    return folder / "a", folder / "b"


def test_one_seed_gives_identical_tables(twice: tuple[Path, Path]) -> None:
    for pattern in TABLES:
        first, second = (next(iter(run.glob(pattern))) for run in twice)
        pd.testing.assert_frame_equal(pd.read_parquet(first), pd.read_parquet(second), check_exact=True)


def test_the_report_shows_pictures_that_exist(twice: tuple[Path, Path]) -> None:
    page = twice[0] / "report" / "index.html"
    text = page.read_text()
    assert "<svg" in text or "data:image" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_the_report_leads_to_the_page_of_latents(twice: tuple[Path, Path]) -> None:
    text = (twice[0] / "report" / "index.html").read_text()
    assert 'href="../browse/index.html"' in text
    assert (twice[0] / "browse" / "index.html").is_file()
    assert any((twice[0] / "browse" / "media" / "clips").glob("*.mp4"))


def test_a_finished_demo_does_nothing(
    twice: tuple[Path, Path], tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.run, "WEIGHTS", tiny_vlm)
    monkeypatch.setattr(demo.run, "MIN_VIDEOS", 2)
    watched = [p for pattern in TABLES for p in twice[0].glob(pattern)] + list(twice[0].glob("activations/*.jsonl"))
    watched += list((twice[0] / "browse").rglob("*.js"))
    before = {p: p.stat().st_mtime_ns for p in watched}
    demo.run.demo(config(twice[0]))
    assert {p: p.stat().st_mtime_ns for p in watched} == before


def test_sae_lens_reads_the_demo_s_sae(twice: tuple[Path, Path]) -> None:
    from sae_lens import SAE

    folder = find_sae(twice[0])
    ours, theirs = load_sae(folder), SAE.load_from_disk(folder)
    store = ActivationStore.open(twice[0] / "activations")
    x = store.read(ours.site, 0, 512).float()
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(x), theirs.encode(x), atol=1e-5, rtol=1e-5)


def test_the_closing_table_names_site_and_quality(twice: tuple[Path, Path]) -> None:
    sae = find_sae(twice[0])
    text = closing_table(twice[0], sae.name, load_sae(sae).site)
    assert "held-out FVU" in text
    assert "strongest specific one" in text


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.run, "WEIGHTS", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        demo.run.demo(config(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_sae": 0}, "--d-sae 0 is too small"),
        ({"k": 16, "d_sae": 8}, "--k 16 is more than the 8 latents"),
        ({"epochs": -1.0}, "--epochs -1.0 is not a positive number"),
        ({"seed": -1}, "--seed -1 is out of range"),
    ],
)
def test_what_a_later_stage_would_refuse_is_refused_at_once(changes: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DemoConfig(**changes)  # type: ignore[arg-type]
