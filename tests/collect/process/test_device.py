"""What `auto` stands for."""

import json
from pathlib import Path

import pytest
import torch

import train_sae.run
from collect.errors import UserError
from collect.process.device import resolve_device, resolve_dtype
from tests.train_sae.stores import SITE, write_run
from train_sae.config import Dtype, TrainConfig
from train_sae.run import train


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)


def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert resolve_device("auto") == torch.device("cuda")
    for name, value in (("RANK", "7"), ("WORLD_SIZE", "10"), ("LOCAL_RANK", "7")):
        monkeypatch.setenv(name, value)
    assert resolve_device("auto") == torch.device("cuda", 3)  # two processes share each GPU
    assert resolve_device("cuda") == torch.device("cuda", 3)
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "capability", "dtype"),
    [
        ("cpu", (9, 0), "float32"),
        ("cuda", (9, 0), "bfloat16"),
        ("cuda:1", (8, 0), "bfloat16"),
        ("cuda", (7, 5), "float32"),
    ],
)
def test_auto_is_bfloat16_on_a_gpu_that_computes_in_it(
    device: str, capability: tuple[int, int], dtype: Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu(monkeypatch, capability)
    assert resolve_dtype("auto", torch.device(device)) == dtype


def test_a_dtype_that_was_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, (9, 0))
    assert resolve_dtype("float32", torch.device("cuda")) == "float32"
    assert resolve_dtype("bfloat16", torch.device("cpu")) == "bfloat16"


def test_a_folder_keeps_what_auto_stood_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, n_videos=8)
    config = TrainConfig(run=tmp_path, site=SITE, d_sae=(16,), k=(2,), batch_size=128, name="a", device="cpu")
    folder = train(config)
    assert json.loads((folder / "config.json").read_text())["arguments"]["dtype"] == "float32"
    # The same training where `auto` is bfloat16 would be another one, also when nothing is left of it to do.
    monkeypatch.setattr(train_sae.run, "resolve_dtype", lambda *_: "bfloat16")
    with pytest.raises(UserError, match=r'dtype = "float32" .now "bfloat16".'):
        train(config)
