"""Reading an SAE, encoding and decoding."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from collect.artefact.stage import write_summary
from collect.errors import UserError
from tests.train_sae.conftest import random_sae
from train_sae import sae as sae_module
from train_sae.lens.export import save_sae
from train_sae.sae import Sae, load_sae


def residuals(n_tokens: int, d_in: int = 12) -> torch.Tensor:
    return 2 * torch.randn(n_tokens, d_in, generator=torch.Generator().manual_seed(1))


def test_sparse_codes_are_the_dense_ones(sae: Sae, monkeypatch: pytest.MonkeyPatch) -> None:
    x = residuals(30)
    f = sae.encode(x)
    monkeypatch.setattr(sae_module, "_CHUNK_ELEMENTS", 7 * sae.d_sae)  # 7 tokens at a time: the last chunk is short
    codes = sae.encode_sparse(x)
    assert (codes.indices.dtype, codes.indptr.dtype) == (torch.int32, torch.int64)
    assert (codes.values > 0).all()
    for token in range(30):
        entries = slice(int(codes.indptr[token]), int(codes.indptr[token + 1]))
        assert codes.indices[entries].tolist() == f[token].nonzero().squeeze(1).tolist()
        torch.testing.assert_close(codes.values[entries], f[token][f[token] > 0])


def test_sparse_decoding_equals_dense_decoding(sae: Sae) -> None:
    x = residuals(30)
    torch.testing.assert_close(sae.decode_sparse(sae.encode_sparse(x)), sae.decode(sae.encode(x)))


def test_a_token_without_active_latents_decodes_to_the_bias() -> None:
    sae = Sae(
        architecture="jumprelu",
        k=1,
        W_enc=torch.eye(2),
        W_dec=torch.eye(2),
        b_enc=torch.zeros(2),
        b_dec=torch.tensor([0.5, -0.5]),
        threshold=torch.tensor([1.0, 2.0]),
    )
    # x − b_dec = (1, 2.5) and (9, −9): above the thresholds (1, 2) are 2.5 at the first token and 9 at the second.
    x = torch.tensor([[1.5, 2.0], [9.5, -9.5], [0.0, 0.0]])
    codes = sae.encode_sparse(x)
    assert codes.indices.tolist() == [1, 0]
    assert codes.values.tolist() == [2.5, 9]
    assert codes.indptr.tolist() == [0, 1, 2, 2]
    torch.testing.assert_close(sae.decode_sparse(codes), torch.tensor([[0.5, 2.0], [9.5, -0.5], [0.5, -0.5]]))


def test_topk_has_at_most_k_active_latents() -> None:
    sae = Sae(
        architecture="topk",
        k=2,
        W_enc=torch.eye(3),
        W_dec=torch.eye(3),
        b_enc=torch.zeros(3),
        b_dec=torch.zeros(3),
        threshold=torch.zeros(3),
    )
    f = sae.encode(torch.tensor([[3.0, 2.0, 1.0], [-1.0, -2.0, 5.0]]))
    assert f.tolist() == [[3, 2, 0], [0, 0, 5]]


def test_no_tokens_give_no_codes(sae: Sae) -> None:
    codes = sae.encode_sparse(residuals(0))
    assert codes.indptr.tolist() == [0]
    assert sae.decode_sparse(codes).shape == (0, sae.d_in)


def test_encodes_the_store_precision(sae: Sae) -> None:
    x = residuals(5).bfloat16()
    torch.testing.assert_close(sae.encode(x), sae.encode(x.float()))


def test_decoder_norm_is_the_inverse_of_the_folded_scale(sae: Sae) -> None:
    # Scale 0.5; the encoder of matching pursuit is its decoder, which needs unit norm.
    expected = 1.0 if sae.architecture == "matching_pursuit" else 2.0
    torch.testing.assert_close(sae.decoder_norm, torch.full((sae.d_sae,), expected))


def test_saving_and_loading_keeps_everything(sae: Sae, tmp_path: Path) -> None:
    save_sae(tmp_path, sae, torch.full((sae.d_sae,), 0.25))
    back = load_sae(tmp_path)
    assert (back.architecture, back.k, back.site, back.fingerprint, back.model_fingerprint) == (
        *(sae.architecture, 4, "resid/3", "abc", "def"),
    )
    assert back.residual_threshold == sae.residual_threshold
    assert sae.residual_threshold == (0.02 if sae.architecture == "matching_pursuit" else 0.0)  # 0.01 / 0.5
    assert back.stored_tensors().keys() == sae.stored_tensors().keys()
    for name, tensor in sae.stored_tensors().items():
        assert torch.equal(back.stored_tensors()[name], tensor)
    assert torch.equal(back.encode(residuals(20)), sae.encode(residuals(20)))
    assert sae.metadata.items() <= back.metadata.items()


def edit_cfg(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        cfg = json.loads((folder / "cfg.json").read_text())
        (folder / "cfg.json").write_text(json.dumps(cfg | changes))

    return edit


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / "sae_weights.safetensors")
    del tensors["b_enc"]
    save_file(tensors, folder / "sae_weights.safetensors")


def edit_weight(name: str, value: float) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "sae_weights.safetensors")
        tensors[name].flatten()[3] = value
        save_file(tensors, folder / "sae_weights.safetensors")

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "cfg.json").unlink(), "cfg.json does not exist"),
        (lambda folder: (folder / "cfg.json").write_text("{"), "cfg.json is not valid JSON"),
        (lambda folder: (folder / "cfg.json").write_text("[]"), "cfg.json is not a JSON object"),
        (lambda folder: (folder / "sae_weights.safetensors").unlink(), "sae_weights.safetensors does not exist"),
        (lambda folder: (folder / "sae_weights.safetensors").write_bytes(b"\x00" * 99), "is damaged"),
        (drop_tensor, "has b_enc of shape none where (40,) is needed"),
        (edit_cfg(architecture="temporal"), "is not a temporal SAE that SAELens can load"),
        (edit_cfg(architecture="\x1b[2Jdense"), "describes a \\x1b[2Jdense SAE, which SAELens does not load"),
        (edit_cfg(architecture=None), "`architecture` = None, which should be text"),
        (edit_cfg(normalize_activations="batch_norm"), "normalize_activations = 'batch_norm', which SAELens does not"),
        (edit_cfg(apply_b_dec_to_input="yes"), "`apply_b_dec_to_input` = 'yes', which should be true or false"),
        (edit_cfg(d_sae=41), "has W_enc of shape (12, 40) where (12, 41) is needed"),
        (edit_cfg(d_in="twelve"), "`d_in` = 'twelve', which should be a whole number"),
        (edit_cfg(d_sae=-1), "says d_in = 12 and d_sae = -1"),
        (edit_cfg(k=None), "`k` = None, which should be a whole number"),
        (edit_cfg(k=41), "`k` = 41, which should be a number of latents, from 1 to 40"),
        (edit_cfg(k=-1), "`k` = -1, which should be a number of latents, from 1 to 40"),
        (edit_cfg(residual_threshold=float("inf")), "`residual_threshold` = inf, which should be a number"),
        (edit_cfg(residual_threshold=-1), "`residual_threshold` = -1, which should be a number of at least 0"),
        (edit_weight("W_enc", float("nan")), "has 1 values in W_enc that are not finite"),
        (edit_weight("b_dec", float("-inf")), "has 1 values in b_dec that are not finite"),
    ],
)
def test_a_broken_folder_is_a_user_error(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    save_sae(tmp_path, random_sae("topk"), torch.zeros(40))
    damage(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_sae(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert not re.search("train|delete", str(caught.value).replace(str(tmp_path), ""))  # it may be somebody else's


def test_a_setting_that_was_changed_after_the_training_is_found(tmp_path: Path) -> None:
    save_sae(tmp_path, random_sae("topk"), torch.zeros(40))
    write_summary(tmp_path, {}, ["cfg.json"])
    assert load_sae(tmp_path).k == 4
    edit_cfg(k=5)(tmp_path)
    with pytest.raises(UserError, match=r"cfg\.json was changed after its SAE was trained"):
        load_sae(tmp_path)
    (tmp_path / "summary.json").unlink()
    assert load_sae(tmp_path).k == 5
