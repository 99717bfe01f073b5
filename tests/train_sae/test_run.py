"""The train stage from a store on disk to an SAE folder."""

import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import train_sae.run
import train_sae.trainer
from collect.data.split import held_out_ids
from collect.errors import UserError
from collect.reading import ActivationStore
from tests.train_sae.rows import broken_at
from tests.train_sae.stores import D_IN, SITE, VIDEO_TOKENS, planted_directions, write_run
from tests.train_sae.trainings import short_training, summary_of
from train_sae.batches.normalisation import Normalisation
from train_sae.checkpoint import checkpoints
from train_sae.config import Architecture
from train_sae.reading import read_metrics
from train_sae.run import train
from train_sae.sae import load_sae

SAE_FILES = ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors", "summary.json")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with activations that no test changes, except by adding SAEs under names of its own."""
    return write_run(tmp_path_factory.mktemp("run"))


def without_speed(line: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in line.items() if not name.endswith("_s")}


def test_the_planted_dictionary_is_recovered(run_folder: Path, arch: Architecture) -> None:
    folder = train(short_training(run_folder, arch=arch, d_sae=40, epochs=30.0, lr=1e-2, name=f"planted-{arch}"))
    sae = load_sae(folder)
    cosines = (planted_directions() @ (sae.W_dec / sae.decoder_norm[:, None]).T).amax(dim=1)
    assert float((cosines > 0.9).float().mean()) >= 0.9
    summary = summary_of(folder)
    # TopK cannot follow that tokens have more or fewer than two directions.
    assert summary["held_out"]["fvu"] < (0.3 if arch == "topk" else 0.1)
    assert summary["held_out"]["l0"] == pytest.approx(2, rel=0.25)


def test_tiny_training_gives_the_golden_numbers(run_folder: Path) -> None:
    # Recorded on an x86-64 CPU; other numbers mean that training changed, which belongs in the changelog.
    held_out = summary_of(train(short_training(run_folder, name="golden")))["held_out"]
    assert held_out["fvu"] == pytest.approx(0.56315, rel=0.01)
    assert held_out["l0"] == pytest.approx(2.1262, rel=0.01)
    assert held_out["cosine"] == pytest.approx(0.98880, rel=0.01)


def test_writes_the_files_of_an_sae_and_how_it_came_about(run_folder: Path) -> None:
    folder = train(short_training(run_folder, name="files"))
    assert folder == run_folder / "sae" / "files"
    assert {path.name for path in folder.iterdir()} == {*SAE_FILES, "config.json", "metrics.jsonl", "checkpoints"}
    sae = load_sae(folder)
    assert (sae.site, sae.model_fingerprint, sae.k, sae.d_sae) == (SITE, "f00d", 2, 64)
    assert sae.fingerprint == ActivationStore.open(run_folder / "activations").fingerprint
    summary = summary_of(folder)
    assert summary["n_train_tokens"] + summary["held_out"]["n_tokens"] == 40 * VIDEO_TOKENS
    assert summary["n_training_tokens"] == summary["n_steps"] * 128
    lines = read_metrics(folder)
    assert lines[-1]["step"] == summary["n_steps"]
    assert {"tokens", "fvu", "l0", "dead", "lr", "mse", "aux", "threshold", "tokens_per_s"} <= set(lines[0])


def test_two_runs_with_one_seed_are_identical(run_folder: Path) -> None:
    first, second = (train(short_training(run_folder, name=f"twin-{i}")) for i in range(2))
    for name in ("sae_weights.safetensors", "sparsity.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert summary_of(first) == summary_of(second)


def test_another_seed_gives_other_weights(run_folder: Path) -> None:
    first, second = (train(short_training(run_folder, name=f"seed-{seed}", seed=seed)) for seed in range(2))
    assert (first / SAE_FILES[1]).read_bytes() != (second / SAE_FILES[1]).read_bytes()


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(run_folder: Path) -> None:
    # Latents that are dead after 200 tokens bring AuxK into play.
    straight = train(short_training(run_folder, dead_tokens=200, name="straight"))
    settings = short_training(run_folder, dead_tokens=200, name="killed")
    # The process is killed in its 25th step, five steps after a checkpoint and while steps are being logged.
    code = f"""
import os, signal
from pathlib import PosixPath
import train_sae.run
import train_sae.trainer
from train_sae.config import TrainConfig
step = train_sae.trainer.take_step
def fatal(state, *rest):
    if state.step == 24:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(state, *rest)
train_sae.trainer.take_step = fatal
train_sae.run.train({settings!r})
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    assert [path.stem for path in checkpoints(settings.folder)] == ["step-00000010", "step-00000020"]
    assert not (settings.folder / "cfg.json").exists()
    resumed = train(settings)
    for name in SAE_FILES[1:3]:
        assert (resumed / name).read_bytes() == (straight / name).read_bytes()
    for old, new in zip(read_metrics(straight), read_metrics(resumed), strict=True):
        assert without_speed(old) == without_speed(new)


def test_metrics_written_after_the_last_checkpoint_are_replaced(run_folder: Path) -> None:
    settings = short_training(run_folder, name="torn")
    train(settings)
    expected = [line["step"] for line in read_metrics(settings.folder)]
    (settings.folder / "summary.json").unlink()
    checkpoints(settings.folder)[-1].unlink()  # the one before is of step 20
    with (settings.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 29, "fv')
    train(settings)
    assert [line["step"] for line in read_metrics(settings.folder)] == expected


def test_a_finished_training_is_left_alone(run_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = train(short_training(run_folder, name="finished"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with caplog.at_level(logging.INFO):
        assert train(short_training(run_folder, name="finished", device="auto", checkpoint_every=7)) == folder
    assert "is finished: nothing to do" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_held_out_videos_are_never_trained_on(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ActivationStore.open(run_folder / "activations")
    apart = held_out_ids((video.video_id, video.split) for video in store.videos)
    assert 0 < len(apart) < len(store.videos)
    seen: list[Tensor] = []
    step = train_sae.trainer.take_step

    def watch(state: Any, x: Tensor, *rest: Any) -> Any:
        seen.append(x)
        return step(state, x, *rest)

    monkeypatch.setattr(train_sae.trainer, "take_step", watch)
    folder = train(short_training(run_folder, name="watched"))
    scale = summary_of(folder)["scale"]
    trained_on = {tuple(row) for row in torch.cat(seen).tolist()}
    for video in store.videos:
        rows = store.read(SITE, video.row_start, video.row_stop) * scale
        hits = sum(tuple(row) in trained_on for row in rows.tolist())
        assert hits == 0 if video.video_id in apart else hits == VIDEO_TOKENS


def test_official_splits_decide_what_is_held_out(tmp_path: Path) -> None:
    write_run(tmp_path, n_videos=8, splits=("train", "train", "train", "valid"))
    summary = summary_of(train(short_training(tmp_path)))
    assert summary["n_train_tokens"] == 6 * VIDEO_TOKENS
    assert summary["held_out"]["n_tokens"] == 2 * VIDEO_TOKENS


def test_without_held_out_videos_the_summary_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_run(tmp_path, n_videos=1)
    monkeypatch.setattr(train_sae.run, "held_out_ids", lambda _: frozenset())
    folder = train(short_training(tmp_path, batch_size=100, epochs=3.0))  # a batch is more than an epoch
    assert summary_of(folder)["held_out"] is None
    assert "No video is held out" in caplog.text


def test_bfloat16_stores_and_encoders_train(tmp_path: Path) -> None:
    write_run(tmp_path, n_videos=10, dtype=torch.bfloat16)
    folder = train(short_training(tmp_path, dtype="bfloat16", epochs=20.0))
    assert summary_of(folder)["held_out"]["fvu"] < 0.6
    assert load_sae(folder).W_enc.dtype == torch.float32


def test_a_broken_activation_stops_the_training_and_says_where(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = train_sae.trainer.take_step

    def poison(state: Any, x: Tensor, *rest: Any) -> Any:
        return step(state, x * (torch.nan if state.step == 17 else 1), *rest)

    monkeypatch.setattr(train_sae.trainer, "take_step", poison)
    settings = short_training(run_folder, name="poisoned")
    with pytest.raises(UserError) as caught:
        train(settings)
    # Step 17 begins at token 17 · 128 = 2,176; an epoch has 1,728.
    assert "stopped at step 17: the loss is nan though its activations are finite" in str(caught.value)
    assert "(epoch 1, pool 0, position 448)" in str(caught.value)
    good = settings.folder / "checkpoints" / "step-00000010.safetensors"
    assert f"the last good checkpoint is {good}" in str(caught.value)
    assert checkpoints(settings.folder) == [good]
    assert not (settings.folder / "cfg.json").exists()


def test_a_broken_token_is_named(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ActivationStore.open(run_folder / "activations")
    apart = held_out_ids((video.video_id, video.split) for video in store.videos)
    video = next(video for video in store.videos if video.video_id not in apart)
    monkeypatch.setattr(train_sae.run, "ShardReader", broken_at(video.row_start + 21))
    scale = Normalisation(1.0, torch.zeros(D_IN, dtype=torch.float64))
    monkeypatch.setattr(train_sae.run, "measure", lambda *_: scale)
    # Token 21 of a video of 4 x 4 x 4 tokens is (t, row, column) = (1, 1, 1).
    token = f"the first of video {video.video_id}, t 1, row 1, column 1"
    with pytest.raises(UserError, match=f"because 1 tokens of its batch are not finite, {token}"):
        train(short_training(run_folder, name="broken", epochs=1.0))


def test_a_sweep_trains_what_single_trainings_train(run_folder: Path) -> None:
    swept = short_training(run_folder, arch=("topk", "batchtopk"), k=(2, 3), name="swept")
    assert train(swept) == run_folder / "sae"
    for sae in swept.saes():
        alone = train(short_training(run_folder, arch=sae.arch, k=sae.k, name=f"alone-{sae.name}"))
        for name in SAE_FILES[1:3]:
            assert (sae.folder / name).read_bytes() == (alone / name).read_bytes()
        assert summary_of(sae.folder) == summary_of(alone)
    table = pd.read_parquet(run_folder / "sae" / "comparison.parquet").set_index("sae")
    assert {sae.name for sae in swept.saes()} <= set(table.index)
    assert table["pareto"].any()
    assert (run_folder / "sae" / "comparison.svg").read_text().startswith("<svg")


def test_a_sweep_goes_on_where_each_of_its_saes_was(run_folder: Path) -> None:
    swept = short_training(run_folder, k=(2, 3), name="parted")
    train(swept)
    first, second = (sae.folder for sae in swept.saes())
    expected = [(folder / SAE_FILES[1]).read_bytes() for folder in (first, second)]
    # As after a kill between the two checkpoints of step 28: one SAE is finished, the other is eight steps behind.
    (second / "summary.json").unlink()
    checkpoints(second)[-1].unlink()
    train(swept)
    assert [(folder / SAE_FILES[1]).read_bytes() for folder in (first, second)] == expected
    for folder in (first, second):
        (folder / "summary.json").unlink()
    checkpoints(first)[-1].unlink()
    train(swept)
    assert [(folder / SAE_FILES[1]).read_bytes() for folder in (first, second)] == expected
    assert [line["step"] for line in read_metrics(first)] == [line["step"] for line in read_metrics(second)]


def test_filters_apply_to_both_sides_of_the_split(run_folder: Path) -> None:
    summary = summary_of(train(short_training(run_folder, name="frames", tokens=("every:4",))))
    assert summary["n_train_tokens"] + summary["held_out"]["n_tokens"] == 40 * VIDEO_TOKENS // 4


def test_every_line_says_where_the_time_went(run_folder: Path) -> None:
    lines = read_metrics(train(short_training(run_folder, name="timed", options=("log_every=5",))))
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 25, 27]
    for line in lines:
        assert all(line[f"{phase}_s"] >= 0 for phase in ("loader", "step", "log", "checkpoint"))
        assert 20 < line["videos_per_batch"] <= 27


def test_other_settings_in_a_folder_are_a_user_error(run_folder: Path) -> None:
    train(short_training(run_folder, name="settings"))
    with pytest.raises(UserError, match=re.escape("k = 2 (now 3)")):
        train(short_training(run_folder, name="settings", k=3))


def test_other_activations_under_an_sae_are_a_user_error(tmp_path: Path) -> None:
    write_run(tmp_path, n_videos=8)
    train(short_training(tmp_path, name="a"))
    shutil.rmtree(tmp_path / "activations")
    write_run(tmp_path, n_videos=9)
    with pytest.raises(UserError, match="input activations"):
        train(short_training(tmp_path, name="a"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"site": "resid/9"}, "holds no site 'resid/9': choose one of resid/2, or collect that site"),
        ({"device": "cuda:99"}, "--device cuda:99 is not available here"),
        ({"device": "nonsense"}, "--device nonsense is not available here"),
    ],
)
def test_what_cannot_be_done_is_a_user_error_that_writes_nothing(
    run_folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        train(short_training(run_folder, name="refused", **changes))
    assert not (run_folder / "sae" / "refused").exists()


def test_a_store_of_held_out_videos_only_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, n_videos=1)
    monkeypatch.setattr(train_sae.run, "held_out_ids", lambda _: frozenset({"video_0"}))
    with pytest.raises(UserError, match="holds no tokens of train videos that pass --tokens: collect more videos"):
        train(short_training(tmp_path))
    assert not (tmp_path / "sae").exists()


def test_a_run_without_activations_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `video-sae collect`"):
        train(short_training(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_dictionary_beyond_the_memory_is_refused_before_anything_is_begun(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    # 24 dimensions of two billion latents: two matrices and two moments of each, of four bytes.
    with pytest.raises(UserError, match=r"takes at least 1,152\.0 GB of memory"):
        train(short_training(run, d_sae=2 * 10**9))
    assert not list((run / "sae").glob("*"))


def test_a_batch_larger_than_an_epoch_is_said(run_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(short_training(run_folder, name="large-batch", batch_size=4096))
    assert "--batch-size 4096 is more than the" in caplog.text
