from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from collect.errors import UserError
from collect.vlm import load_vlm
from collect.vlm.unembedding import read_unembedding


def test_logits_of_a_direction_are_those_of_the_model_s_own_head(model_folder: Path) -> None:
    """The model's norm and head on a residual that is the direction itself, whose scale the norm removes."""
    vlm = load_vlm(str(model_folder))
    network = vlm.model
    found = read_unembedding(str(model_folder))
    directions = torch.randn(3, found.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        norm = next(module for name, module in network.named_modules() if name.endswith("language_model.norm"))
        logits = network.lm_head(norm(directions))
    wanted = logits - logits.mean(dim=1, keepdim=True)
    # The norm divides by the root mean square: a direction of norm 1 is root(d) times smaller than what it gives.
    torch.testing.assert_close(found.logits(directions), wanted / found.d_model**0.5, rtol=1e-4, atol=1e-6)


def test_tokens_have_their_text(model_folder: Path) -> None:
    from transformers import AutoTokenizer

    found = read_unembedding(str(model_folder))
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokens = list(range(0, found.weight.shape[0], 7))
    assert found.texts(tokens) == [tokenizer.decode([token]) for token in tokens]
    assert found.texts(torch.tensor(tokens)) == found.texts(tokens)


def test_a_model_without_a_head_of_its_own_uses_its_embedding(model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "tied"))
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    embedding = next(tensor for name, tensor in tensors.items() if name.endswith("embed_tokens.weight"))
    save_file({name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}, path, {"format": "pt"})
    assert torch.equal(read_unembedding(str(folder)).weight, embedding)


def test_what_is_not_there_is_said(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not on this machine"):
        read_unembedding("nobody/never-fetched-model")
    folder = Path(shutil.copytree(model_folder, tmp_path / "empty"))
    (path,) = folder.glob("*.safetensors")
    save_file({"other": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="no unembedding"):
        read_unembedding(str(folder))
    path.write_bytes(b"\0" * 64)
    with pytest.raises(UserError, match="cannot be read"):
        read_unembedding(str(folder))
