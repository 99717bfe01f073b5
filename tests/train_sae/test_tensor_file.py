"""Tensor files: damage anywhere is found, and other programs' files are read."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from collect.errors import UserError
from train_sae.tensor_file import load_tensors, save_tensors

TENSORS = {
    "W": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "half": torch.ones(5, dtype=torch.bfloat16),
    "step": torch.tensor(7),
    "none": torch.zeros(0),
}


def test_round_trip_keeps_tensors_and_text(tmp_path: Path) -> None:
    save_tensors(tmp_path / "t.safetensors", TENSORS, {"state": "{}"})
    tensors, text = load_tensors(tmp_path / "t.safetensors", "make it again")
    assert text == {"state": "{}"}
    assert list(tensors) == sorted(TENSORS)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_one_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_tensors(path, TENSORS, {"state": "{}"})
    whole = path.read_bytes()
    n_found = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            tensors, text = load_tensors(path, "make it again")
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017
            n_found += 1
        else:  # the name of the checksum, which then stands beside the other text
            assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
            assert text["state"] == "{}"
    assert n_found > len(whole) - 12


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100_000_001) + b"{}",
        struct.pack("<Q", 20_000) + b"[" * 20_000,
        struct.pack("<Q", 2) + b"{}" + b"more",
    ],
)
def test_a_file_that_holds_no_tensors_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"t\.safetensors is damaged .*: make it again"):
        load_tensors(tmp_path / "t.safetensors", "make it again")


def test_tensors_beyond_the_end_are_a_user_error(tmp_path: Path) -> None:
    header = json.dumps({"W": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (tmp_path / "t.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UserError, match="is damaged"):
        load_tensors(tmp_path / "t.safetensors", "make it again")


def test_a_folder_in_the_files_place_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a file: make it again"):
        load_tensors(tmp_path, "make it again")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_with_their_tensor(tmp_path: Path, value: float) -> None:
    save_file({"W_enc": torch.tensor([1.0, value])}, tmp_path / "t.safetensors")
    with pytest.raises(UserError, match="values in W_enc that are not finite"):
        load_tensors(tmp_path / "t.safetensors", "make it again")


def test_files_of_other_programs_are_read_and_ours_are_read_by_others(tmp_path: Path) -> None:
    save_file({"W": torch.ones(2)}, tmp_path / "theirs.safetensors")
    assert load_tensors(tmp_path / "theirs.safetensors", "-")[0]["W"].tolist() == [1.0, 1.0]
    save_tensors(tmp_path / "ours.safetensors", TENSORS)
    assert torch.equal(load_file(tmp_path / "ours.safetensors")["W"], TENSORS["W"])


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3), "a": torch.ones(2, 2)}
    text = {"zeta": "1", "alpha": '{"größe": "2"}', "mu": "3"}
    written = set()
    for number in range(8):
        save_tensors(tmp_path / f"{number}.safetensors", tensors, text)
        written.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(written) == 1
    found, told = load_tensors(tmp_path / "0.safetensors", "make it again")
    assert told == text
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
