"""A finished run with one file damaged: what is read is what was written, or an error that names the file."""

import random
import shutil
from pathlib import Path

import pandas as pd
import pytest

from ask.reading import picked_site
from collect.errors import UserError
from features.codes import Codes
from report.record import Record, read_record
from tests.small_run import SAE_NAME
from tests.steer.finished_run import finish_run
from train_sae.quality.comparison import comparison
from train_sae.sae import load_sae

FILES = {
    "profile/config.json": 3,
    "profile/profile.parquet": 3,
    "profile/summary.json": 3,
    f"sae/{SAE_NAME}/cfg.json": 5,
    f"sae/{SAE_NAME}/config.json": 3,
    f"sae/{SAE_NAME}/metrics.jsonl": 5,
    f"sae/{SAE_NAME}/sae_weights.safetensors": 5,
    f"sae/{SAE_NAME}/summary.json": 5,
    f"features/{SAE_NAME}/associations.parquet": 3,
    f"features/{SAE_NAME}/catalogue.parquet": 3,
    f"features/{SAE_NAME}/codes.zarr/values/c/0": 3,
    f"features/{SAE_NAME}/config.json": 3,
    f"features/{SAE_NAME}/exemplars.parquet": 3,
    f"features/{SAE_NAME}/summary.json": 5,
    f"steer/{SAE_NAME}/baselines.parquet": 3,
    f"steer/{SAE_NAME}/config.json": 3,
    f"steer/{SAE_NAME}/controls.parquet": 3,
    f"steer/{SAE_NAME}/items.parquet": 3,
    f"steer/{SAE_NAME}/screen.parquet": 3,
    f"steer/{SAE_NAME}/summary.parquet": 3,
}
"""Damages to try on each file."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, collected: Path, data_folder: Path) -> Path:
    return finish_run(collected, data_folder, tmp_path_factory.mktemp("damage") / "run")


def everything(run: Path) -> list[object]:
    """What all readers of the run give, as values to compare."""
    record = read_record(run)
    sae = load_sae(run / "sae" / SAE_NAME)
    codes = Codes.open(run / "features" / SAE_NAME / "codes.zarr")
    tensors = [tensor.tolist() for tensor in sae.stored_tensors().values()]
    known = [sae.architecture, sae.k, str(sae.metadata), picked_site(run), codes.attributes]
    return [
        *values(record),
        *tensors,
        *known,
        codes.rows(0, codes.n_tokens).toarray().tolist(),
        table(comparison(run / "sae")),
    ]


def values(record: Record) -> list[object]:
    assert record.training is not None
    assert record.profile is not None
    assert record.features is not None
    assert record.effects is not None
    features, effects = record.features, record.effects
    tables = [record.training.curve, record.profile.table, features.catalogue, features.associations]
    tables += [features.exemplars, effects.items, effects.baselines, effects.screen, effects.controls, effects.summary]
    facts = [[stage.config[name] for name in ("arguments", "inputs", "versions", "commit")] for stage in record.stages]
    counts = [features.summary[name] for name in ("n_latents", "n_dead", "n_labelled", "n_tested", "n_labels")]
    trained = [record.training.summary[name] for name in ("site", "d_sae", "k", "n_steps", "train", "held_out")]
    return [*map(table, tables), facts, counts, trained, record.profile.site]


def table(frame: pd.DataFrame) -> str:
    return frame.to_csv()


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with one bit flipped, cut short, with a hole, or with something behind it."""
    place = rng.randrange(len(content))
    match rng.choice(("flip", "flip", "flip", "cut", "hole", "more")):
        case "flip":
            return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
        case "cut":
            return content[:place]
        case "hole":
            return content[:place] + b"\0" * len(content[place : place + 50]) + content[place + 50 :]
        case _:
            return content + b"\0"


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_as_it_was_or_named(run: Path, name: str) -> None:
    expected = everything(run)
    path, rng = run / name, random.Random(name)
    whole = path.read_bytes()
    outcomes = {"same": 0, "named": 0}
    try:
        for _ in range(FILES[name]):
            path.write_bytes(damaged(whole, rng))
            try:
                assert everything(run) == expected
                outcomes["same"] += 1
            except UserError as error:
                message = str(error)
                assert path.parts[-4 if "codes.zarr" in name else -1].removesuffix("/c/0") in message
                assert "\n" not in message
                outcomes["named"] += 1
    finally:
        path.write_bytes(whole)
    assert outcomes["named"] >= FILES[name] // 2  # the rest is white space and the names of checksums


@pytest.mark.parametrize("name", [name for name in FILES if "codes.zarr" not in name])
def test_a_folder_in_a_files_place_is_named(run: Path, name: str) -> None:
    path = run / name
    aside = path.rename(run / "aside")
    path.mkdir()
    try:
        with pytest.raises(UserError, match="is not a file") as caught:
            everything(run)
        assert path.name in str(caught.value)
    finally:
        shutil.rmtree(path)
        aside.rename(path)
