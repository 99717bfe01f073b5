"""Training in two processes, over gloo: the same as in one."""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from collect.errors import UserError
from collect.reading import ActivationStore
from tests.train_sae.stores import SITE, write_run
from train_sae.batches.loader import TokenLoader
from train_sae.batches.shard_reader import ShardReader
from train_sae.config import TrainConfig
from train_sae.processes.group import Group
from train_sae.processes.parallel import LatentSharded, check_parts
from train_sae.run import token_sets, train
from train_sae.sae import load_sae

# Runs in each process. For names that end in "one", the process takes both lanes of every batch: the losses to compare
# with. Imports take most of the time, so one start trains several SAEs.
CODE = """
import os, signal, sys
from contextlib import ExitStack
from pathlib import Path
import torch
import train_sae.run, train_sae.trainer
from tests.train_sae.rows import BothLanes, broken_at
from tests.train_sae.stores import D_IN
from train_sae.config import TrainConfig
from train_sae.batches.normalisation import Normalisation
from train_sae.processes.parallel import joined

torch.set_num_threads(1)
run, site, kill_at, *names = sys.argv[1:]
plain = train_sae.run.TokenLoader
step = train_sae.trainer.take_step
def fatal(state, *rest):
    if state.step == int(kill_at) and os.environ.get("RANK") == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    stats = step(state, *rest)
    if state.step == 5 and os.environ.get("BROKEN_WEIGHT") == os.environ.get("RANK"):
        state.weights.b_enc.data[0] = torch.nan
    return stats
train_sae.trainer.take_step = fatal
evaluate = train_sae.run.evaluate
def watched(saes, chunks, group):
    assert saes[0].d_sae == 64 // group.n_shards
    return evaluate(saes, chunks, group)
train_sae.run.evaluate = watched
if "BROKEN_ROW" in os.environ:
    train_sae.run.ShardReader = broken_at(int(os.environ["BROKEN_ROW"]))
    train_sae.run.measure = lambda *_: Normalisation(1.0, torch.zeros(D_IN, dtype=torch.float64))
# Several trainings share a group; a single one has its own.
together = ExitStack()
if len(names) > 1:
    together.enter_context(joined(False, torch.device("cpu")))
for name in names:
    arch, _, sharded = name.partition("-")
    train_sae.run.TokenLoader = BothLanes if sharded == "one" else plain
    options = ("checkpoint_every=5", "log_every=1", "dead_tokens=300")
    options += ("shard_latents=true",) if sharded.startswith("latents") else ()
    options += ("matryoshka_widths=[10,40]",) if arch.startswith("matryoshka") else ()
    train_sae.run.train(TrainConfig(
        run=Path(run), site=site, name=name, arch=(arch,), d_sae=(64,), k=(2,), lr=(3e-3,), batch_size=128, epochs=1.0,
        device="cpu", options=options,
    ))
together.close()
# A process that ends while a group's threads run is aborted now and then.
assert not [task for task in Path("/proc/self/task").glob("*/comm") if "gloo" in task.read_text()]
"""
N_STEPS = 14


def processes_of(run: Path, *names: str, n: int, kill_at: int = -1, **changes: Any) -> list[subprocess.Popen[str]]:
    """Start processes that train SAEs together; `changes` are to their environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    plain = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3]), **changes}
    together = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = [sys.executable, "-c", CODE, str(run), SITE, str(kill_at), *names]
    return [
        subprocess.Popen(
            words,
            env={**plain, **together, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE if changes else None,
            text=True,
        )
        for rank in range(n)
    ]


def start(run: Path, *names: str, processes: int = 1, kill_at: int = -1) -> list[int]:
    """Train SAEs in so many processes and return their exit statuses."""
    running = processes_of(run, *names, n=processes, kill_at=kill_at)
    statuses = [running[-1].wait(timeout=300)]
    for process in running[:-1]:
        if statuses[0]:  # as torchrun does where one process fails
            process.kill()
        statuses.insert(0, process.wait(timeout=300))
    return statuses


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    text = (run / "sae" / name / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


DATA = ("topk", "batchtopk", "matryoshka_batchtopk", "jumprelu")
LATENTS = ("topk", "batchtopk", "matryoshka_batchtopk")
PAIRS = [
    *((f"{arch}-data", f"{arch}-one") for arch in DATA),
    *((f"{arch}-latents", f"{arch}-whole") for arch in LATENTS),
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every SAE of the pairs, trained by two processes and by one."""
    run = write_run(tmp_path_factory.mktemp("run"))
    assert start(run, *(alone for _, alone in PAIRS)) == [0]
    assert start(run, *(together for together, _ in PAIRS), processes=2) == [0, 0]
    return run


@pytest.mark.parametrize(("together", "alone"), PAIRS)
def test_two_processes_train_what_one_trains(run_folder: Path, together: str, alone: str) -> None:
    found, expected = lines(run_folder, together), lines(run_folder, alone)
    assert len(found) == len(expected) == N_STEPS
    for new, old in zip(found, expected, strict=True):
        for name in ("step", "tokens", "dead", "videos_per_batch"):
            assert new[name] == old[name], name
        for name in ("mse", "fvu", "l0", "aux", "threshold", "sparsity"):
            assert new[name] == pytest.approx(old[name], rel=1e-4, abs=1e-6), name
    before, after = (json.loads((run_folder / "sae" / name / "summary.json").read_text()) for name in (alone, together))
    for split in ("train", "held_out"):
        for name in ("n_tokens", "fvu", "l0", "n_dead", "n_dense", "cosine", "relative_bias"):
            assert after[split][name] == pytest.approx(before[split][name], rel=1e-4), name
    rates = [load_file(run_folder / "sae" / name / "sparsity.safetensors")["sparsity"] for name in (alone, together)]
    assert torch.allclose(*rates, atol=0.05)
    one, two = (load_sae(run_folder / "sae" / name) for name in (alone, together))
    assert torch.allclose(two.W_dec, one.W_dec, atol=1e-4)
    assert torch.allclose(two.W_enc, one.W_enc, atol=1e-4)


def test_dead_latents_took_part(run_folder: Path) -> None:
    for name in ("topk-data", "topk-latents"):
        assert any(line["aux"] > 0 for line in lines(run_folder, name))


def test_killed_and_resumed_equals_uninterrupted(run_folder: Path) -> None:
    straight, killed = ("batchtopk-data", "topk-latents"), ("batchtopk-data-killed", "topk-latents-killed")
    for name in killed:
        first, second = start(run_folder, name, processes=2, kill_at=8)
        assert second == -9
        assert first != 0
        assert not (run_folder / "sae" / name / "summary.json").exists()
        assert list((run_folder / "sae" / name / "checkpoints").rglob("step-00000005.safetensors"))
    assert start(run_folder, *killed, processes=2) == [0, 0]
    for before, after in zip(straight, killed, strict=True):
        for file in ("sae_weights.safetensors", "sparsity.safetensors"):
            assert (run_folder / "sae" / after / file).read_bytes() == (run_folder / "sae" / before / file).read_bytes()


@pytest.mark.parametrize("name", ["batchtopk-data-broken", "topk-latents-broken"])
def test_all_processes_stop_at_a_broken_token_and_name_it(run_folder: Path, name: str) -> None:
    store = ActivationStore.open(run_folder / "activations")
    config = TrainConfig(run=run_folder, site=SITE, batch_size=128)
    reader = ShardReader(store.shards(SITE), store.dtype(SITE))
    tokens, _ = token_sets(store, config)
    # Data-parallel, the token lies in the second process's part of the batch of step 3.
    n_lanes, lane = (2, [1]) if "data" in name else (1, None)
    loader = TokenLoader(reader, tokens, batch_size=128, seed=0, n_lanes=n_lanes, lanes=lane)
    row = int(loader.rows(3)[5])
    video, t, line, column = store.coords(row, row + 1)[0].tolist()
    running = processes_of(run_folder, name, n=2, BROKEN_ROW=str(row))
    said = [process.communicate(timeout=300)[1].rpartition("UserError: ")[2] for process in running]
    assert [process.returncode for process in running] == [1, 1]
    place = f"video {store.videos[video].video_id}, t {t}, row {line}, column {column} (epoch 0, pool 0, position"
    for message in said:
        assert re.search(r"stopped at step 3: the loss is (inf|nan) because 1 tokens of its batch are not", message)
        assert place in message
    assert len(set(said)) == 1


def test_all_processes_stop_where_one_has_a_weight_that_is_not_finite(run_folder: Path) -> None:
    running = processes_of(run_folder, "topk-latents-diverged", n=2, BROKEN_WEIGHT="1")
    for process in running:
        assert "stopped at step 5: a weight is not finite" in process.communicate(timeout=300)[1]
    assert not list((run_folder / "sae" / "topk-latents-diverged").rglob("step-*"))


def test_another_number_of_processes_is_refused(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Three(Group):
        n_processes = 3

    monkeypatch.setattr("train_sae.run.joined", lambda *_: nullcontext(Three()))
    options = ("checkpoint_every=5", "log_every=1", "dead_tokens=300")
    settings = TrainConfig(
        run=run_folder,
        site=SITE,
        name="topk-data",
        arch=("topk",),
        d_sae=(64,),
        k=(2,),
        lr=(3e-3,),
        batch_size=128,
        epochs=1.0,
        device="cpu",
        options=options,
    )
    with pytest.raises(UserError, match=r'input processes = "2" .now "3".'):
        train(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_sae": (65,)}, "--d-sae 65 cannot be shared out evenly among 2 processes"),
        ({"arch": ("gated",)}, "--arch gated cannot be trained with shard_latents=true"),
    ],
)
def test_what_cannot_be_shared_out_is_a_user_error(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    config = TrainConfig(**{"run": Path("runs/a"), "site": SITE, "d_sae": (64,), "k": (2,), **changes})
    with pytest.raises(UserError, match=message):
        check_parts(LatentSharded(), config)
