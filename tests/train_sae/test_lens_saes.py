"""Other people's SAEs: what SAELens loads from disk is encoded and decoded here as SAELens does it."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from collect.errors import UserError
from tests.train_sae.lens_saes import (
    ARCHITECTURES,
    D_IN,
    D_SAE,
    TRANSCODERS,
    draw,
    edit_cfg,
    edit_weights,
    lens_outputs,
    sae_lens,
    save_lens_sae,
)
from train_sae.sae import load_sae

X = 2 * draw(50, D_IN, seed=99) + 1
NORMALISATIONS = ("expected_average_only_in", "covariance_whitening", "layer_norm", "constant_norm_rescale")


def assert_alike(folder: Path) -> None:
    """Encode, decode and reconstruct as SAELens does in float32."""
    f, x_hat = lens_outputs(folder, X, "float32")
    assert 0 < int((f != 0).sum()) < f.numel()
    sae = load_sae(folder)
    torch.testing.assert_close(sae.encode(X), f, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.decode(f, X), x_hat, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.reconstruct(X), x_hat, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(architecture: str, tmp_path: Path) -> None:
    assert_alike(save_lens_sae(tmp_path, architecture))


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in TRANSCODERS])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_every_normalisation(architecture: str, normalisation: str, tmp_path: Path) -> None:
    if (architecture, normalisation) == ("temporal", "covariance_whitening"):
        normalisation = "constant_scalar_rescale"
    assert_alike(save_lens_sae(tmp_path, architecture, normalize_activations=normalisation))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_the_input_bias(architecture: str, tmp_path: Path) -> None:
    assert_alike(save_lens_sae(tmp_path, architecture, apply_b_dec_to_input=False))


@pytest.mark.parametrize("normalisation", ["none", *NORMALISATIONS])
@pytest.mark.parametrize("architecture", ["topk", "abstopk"])
@pytest.mark.parametrize("bias", [True, False])
def test_scaled_by_decoder_norms(architecture: str, bias: bool, normalisation: str, tmp_path: Path) -> None:
    folder = save_lens_sae(
        tmp_path,
        architecture,
        rescale_acts_by_decoder_norm=True,
        apply_b_dec_to_input=bias,
        normalize_activations=normalisation,
    )
    assert_alike(folder)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_float_type(architecture: str, dtype: str, tmp_path: Path) -> None:
    assert_alike(save_lens_sae(tmp_path, architecture, dtype=dtype))
    sae = load_sae(tmp_path)
    assert {sae.W_enc.dtype, sae.W_dec.dtype, sae.b_dec.dtype, sae.encode(X.bfloat16()).dtype} == {torch.float32}


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated", "transcoder"])
def test_half_precision_is_near_to_what_saelens_makes_of_it_in_half_precision(
    architecture: str, tmp_path: Path
) -> None:
    f, x_hat = lens_outputs(save_lens_sae(tmp_path, architecture, dtype="bfloat16"), X)
    assert f.dtype == torch.bfloat16
    sae = load_sae(tmp_path)
    assert (sae.reconstruct(X) - x_hat.float()).norm() < 0.05 * x_hat.float().norm()


def test_weights_stored_in_eight_bits(tmp_path: Path) -> None:
    folder = save_lens_sae(tmp_path, "topk")
    edit_weights(folder, W_dec=draw(D_SAE, D_IN).to(torch.float8_e4m3fn))
    assert_alike(folder)


def test_z_of_attention_heads_is_read_as_the_flat_vector_that_is_stored(tmp_path: Path) -> None:
    metadata = {"hook_name": "blocks.1.attn.hook_z"}
    for architecture in ("standard", "abstopk"):
        folder = save_lens_sae(tmp_path / architecture, architecture, metadata=metadata)
        f, _ = lens_outputs(folder, X)
        edit_cfg(folder, reshape_activations="hook_z")
        torch.testing.assert_close(load_sae(folder).encode(X), f, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{"activation_fn_str": "relu"}, {"activation_fn_str": "topk"}])
@pytest.mark.parametrize("bias", [True, False, None])
@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale", False, True, None])
def test_flat_configurations_from_before_saelens_6(
    settings: dict[str, Any], bias: bool | None, normalisation: str | bool | None, tmp_path: Path
) -> None:
    folder = save_lens_sae(tmp_path, "standard")
    if settings["activation_fn_str"] == "topk":
        settings = {**settings, "activation_fn_kwargs": {"k": 3}}
    flat = {"hook_point": "blocks.2.hook_resid_post", "hook_point_layer": 2, "model_name": "gpt2-small"}
    flat |= {"l1_coefficient": 1e-3, "finetuning_scaling_factor": False, "normalize_activations": normalisation}
    if bias is not None:
        flat["apply_b_dec_to_input"] = bias
    drop = ("architecture", "metadata", "apply_b_dec_to_input", "reshape_activations")
    edit_cfg(folder, *drop, **flat, **settings)
    edit_weights(folder, scaling_factor=torch.ones(D_SAE))
    assert_alike(folder)
    sae = load_sae(folder)
    assert (sae.site, sae.model_name) == ("blocks.2.hook_resid_post", "gpt2-small")
    assert sae.architecture == ("topk" if "activation_fn_kwargs" in settings else "standard")


def test_the_oldest_names_of_hooks_leave_the_layer_open(tmp_path: Path) -> None:
    folder = save_lens_sae(tmp_path, "standard")
    edit_cfg(folder, "metadata", hook_point="blocks.{layer}.hook_resid_post", hook_point_layer=7)
    assert load_sae(folder).site == "blocks.7.hook_resid_post"


def test_a_scaling_that_saelens_no_longer_applies_is_refused(tmp_path: Path) -> None:
    edit_weights(save_lens_sae(tmp_path, "standard"), scaling_factor=torch.full((D_SAE,), 1.5))
    with pytest.raises(UserError, match="scaling_factor that is not 1"):
        load_sae(tmp_path)


@pytest.mark.parametrize("name", ["TopK", "BatchTopK", "MatryoshkaBatchTopK", "Standard", "JumpReLU", "Gated"])
@pytest.mark.parametrize("rescale", [True, False])
def test_an_sae_that_was_saved_in_training_is_its_inference_model(name: str, rescale: bool, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"d_in": D_IN, "d_sae": D_SAE}
    if name.endswith("TopK"):
        settings |= {"k": 5, "rescale_acts_by_decoder_norm": rescale}
    if name.startswith("Matryoshka"):
        settings["matryoshka_widths"] = [10, D_SAE]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        config = getattr(sae_lens, f"{name}TrainingSAEConfig")(**settings)
        sae = getattr(sae_lens, f"{name}TrainingSAE")(config)
        for number, (tensor_name, tensor) in enumerate(sae.named_parameters()):
            tensor.copy_(draw(*tensor.shape, seed=number).abs() if tensor_name == "threshold" else tensor + 0.1)
        sae.W_dec.mul_(torch.linspace(0.5, 4.0, D_SAE).unsqueeze(1))
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(1.3)
        sae.save_model(tmp_path / "training")
        sae.save_inference_model(tmp_path / "inference")  # changes the weights where it folds them
    f, x_hat = lens_outputs(tmp_path / "inference", X)
    for kind in ("training", "inference"):
        ours = load_sae(tmp_path / kind)
        torch.testing.assert_close(ours.encode(X), f, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.reconstruct(X), x_hat, rtol=1e-4, atol=1e-4)


def test_settings_that_are_left_out_have_the_defaults_of_saelens(tmp_path: Path) -> None:
    folder = save_lens_sae(tmp_path, "matching_pursuit", residual_threshold=1e-2, max_iterations=None)
    names = ("residual_threshold", "max_iterations", "stop_on_duplicate_support", "apply_b_dec_to_input")
    edit_cfg(folder, *names, "normalize_activations", "reshape_activations", "device")
    assert_alike(folder)


def test_matching_pursuit_that_goes_on_with_known_latents(tmp_path: Path) -> None:
    assert_alike(save_lens_sae(tmp_path, "matching_pursuit", stop_on_duplicate_support=False, max_iterations=12))


def test_without_saelens_the_forms_here_still_work_and_others_name_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topk = save_lens_sae(tmp_path / "topk", "topk", rescale_acts_by_decoder_norm=True)
    temporal = save_lens_sae(tmp_path / "temporal", "temporal")
    monkeypatch.setitem(sys.modules, "sae_lens", None)  # as where it is not installed
    assert load_sae(topk).encode(X).shape == (50, D_SAE)
    with pytest.raises(UserError, match=r"describes a temporal SAE, .* `pip install sae-lens`"):
        load_sae(temporal)


def test_either_sign_becomes_two_latents(tmp_path: Path) -> None:
    sae = load_sae(save_lens_sae(tmp_path, "abstopk"))
    split = sae.one_sided()
    f, parts = sae.encode(X), split.encode(X)
    assert (sae.is_signed, split.is_signed, split.d_sae) == (True, False, 2 * D_SAE)
    assert (f < 0).any()
    assert (parts >= 0).all()
    torch.testing.assert_close(parts[:, :D_SAE] - parts[:, D_SAE:], f)
    assert (split.encode_sparse(X).values > 0).all()
    torch.testing.assert_close(split.reconstruct(X), sae.reconstruct(X), rtol=1e-4, atol=1e-4)
    assert split.one_sided() is split


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "abstopk"])
def test_others_are_one_sided_already(architecture: str, tmp_path: Path) -> None:
    sae = load_sae(save_lens_sae(tmp_path, architecture))
    assert sae.one_sided() is sae


def test_sparse_codes_of_a_sequence_are_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = load_sae(save_lens_sae(tmp_path, "temporal"))
    monkeypatch.setattr("train_sae.sae._CHUNK_ELEMENTS", 7 * D_SAE)
    codes = sae.encode_sparse(X)
    dense = torch.zeros(len(X), D_SAE)
    dense[torch.repeat_interleave(torch.arange(len(X)), codes.indptr.diff()), codes.indices.long()] = codes.values
    torch.testing.assert_close(dense, sae.encode(X))
    torch.testing.assert_close(sae.decode_sparse(codes, X), sae.reconstruct(X))
    assert sae.encode(X[:0]).shape == (0, D_SAE)
    # What a token's latents are depends on the tokens before it.
    assert not torch.allclose(sae.encode(X[25:]), sae.encode(X)[25:], atol=1e-3)


def test_a_unit_of_activation_writes_its_direction_times_the_tokens_scale(tmp_path: Path) -> None:
    for norm in ("none", "layer_norm", "constant_norm_rescale"):
        sae = load_sae(save_lens_sae(tmp_path / norm, "standard", normalize_activations=norm))
        f = sae.encode(X)
        less = f.clone()
        less[:, 3] = 0
        removed = sae.decode(f, X) - sae.decode(less, X)
        expected = f[:, 3:4] * sae.W_dec[3] * sae.written_per_unit(X)[:, None]
        torch.testing.assert_close(removed, expected, rtol=1e-3, atol=1e-3)


def test_the_old_activation_that_saelens_drops_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save_lens_sae(tmp_path, "standard")
    edit_cfg(folder, "metadata", activation_fn="tanh-relu")
    with caplog.at_level(logging.WARNING):
        assert_alike(folder)
    assert "The activation tanh-relu is taken as relu" in caplog.text
