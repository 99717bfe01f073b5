import os
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from collect.errors import UserError
from collect.vlm import files as vlm_files
from collect.vlm.files import fingerprint, load_weights, resolve_model


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


@pytest.mark.parametrize("name", ["generation_config.json", "config.json", "chat_template.jinja"])
@pytest.mark.parametrize("what", ["pipe", "device", "nothing"])
def test_what_is_no_file_is_refused_before_anything_waits_for_it(copy: Path, name: str, what: str) -> None:
    path = copy / name
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if what == "device" else copy / "nothing.json")
    with pytest.raises(UserError, match=rf"{re.escape(str(path))} is not a file: restore it"):
        resolve_model(str(copy))


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"model_type": 3}', "[" * 100_000, '{"a": ' * 100_000, "\udc80"])
def test_what_is_no_configuration_is_refused_by_name(copy: Path, content: str) -> None:
    (copy / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        UserError, match=rf"{re.escape(str(copy))}/config\.json is missing or is no model configuration"
    ):
        resolve_model(str(copy))


def test_lost_weights_are_refused_and_not_drawn_at_random(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    lost = next(name for name in tensors if name.endswith("layers.1.mlp.up_proj.weight"))
    save_file({name: x for name, x in tensors.items() if name != lost}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 of its weights, such as \S*layers\.1\.mlp\.up_proj\.weight, which"):
        load_weights(copy, "tiny", dtype="auto", attn_implementation="sdpa")


def test_what_transformers_reports_does_not_reach_the_terminal(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(copy / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layers.1.mlp.up_proj.weight"))
    save_file({**tensors, name: tensors[name][:-1].clone()}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="cannot be loaded"):
        load_weights(copy, "tiny", dtype="auto", attn_implementation="sdpa")
    shown = capfd.readouterr()
    assert "REPORT" not in shown.out + shown.err


def test_family_comes_from_the_configuration(tiny_vlm: Path) -> None:
    assert resolve_model(str(tiny_vlm)) == (tiny_vlm, "perception_lm")
