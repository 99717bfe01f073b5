import shutil
from pathlib import Path

import pytest

from collect.vlm import files as vlm_files
from collect.vlm.files import fingerprint, resolve_model


@pytest.fixture
def copy(tiny_vlm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_vlm, tmp_path / "copy"))


def test_a_copy_has_the_same_fingerprint(tiny_vlm: Path, copy: Path) -> None:
    assert fingerprint(copy) == fingerprint(tiny_vlm)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_one_changed_byte_changes_the_fingerprint(tiny_vlm: Path, copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[-10] ^= 1
    (copy / name).write_bytes(bytes(data))
    assert fingerprint(copy) != fingerprint(tiny_vlm)


def test_large_weights_are_sampled_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vlm_files, "BLOCK_BYTES", 10)
    monkeypatch.setattr(vlm_files, "SAMPLED_BLOCKS", 4)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(200))  # 20 blocks, of which every fifth counts: bytes 0-9, 50-59, 100-109, 150-159
    whole = fingerprint(tmp_path)
    changed = {}
    for position in (5, 25, 155):
        data = bytearray(200)
        data[position] = 1
        path.write_bytes(bytes(data))
        changed[position] = fingerprint(tmp_path) != whole
    assert changed == {5: True, 25: False, 155: True}


def test_family_comes_from_the_configuration(tiny_vlm: Path) -> None:
    assert resolve_model(str(tiny_vlm)) == (tiny_vlm, "perception_lm")
