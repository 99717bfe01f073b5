import json
import shutil
from pathlib import Path

import pytest
import torch

from collect.errors import UserError
from collect.vlm import VideoVlm, load_vlm
from tests.collect.video_files import noise
from tests.collect.vlm_suite import clip_of


def test_weights_are_frozen_and_in_evaluation_mode(vlm: VideoVlm) -> None:
    assert not vlm.model.training
    assert not any(p.requires_grad for p in vlm.model.parameters())


def test_description_names_the_model(vlm: VideoVlm, tiny_vlm: Path) -> None:
    assert vlm.describe() == {
        "name": str(tiny_vlm),
        "family": "perception_lm",
        "fingerprint": vlm.fingerprint,
        "n_layers": 3,
        "d_model": 48,
        "dtype": "float32",
    }


def test_bfloat16_on_request(tiny_vlm: Path) -> None:
    vlm = load_vlm(str(tiny_vlm), dtype="bfloat16", device="cpu")
    prefix = vlm.prefix(clip_of([noise(48, 64)] * 2))
    assert vlm.visual_residuals([prefix], ["resid/1"])["resid/1"].dtype == torch.bfloat16
    emb = vlm.embed([prefix], [vlm.suffix("How many ?")])
    assert vlm.logits_from("resid/1", vlm.residual(emb, "resid/1"), emb).dtype == torch.float32


def test_no_such_site(vlm: VideoVlm) -> None:
    prefix = vlm.prefix(clip_of([noise(48, 64)] * 2))
    with pytest.raises(UserError, match=r"no site 'resid/3' in this model: .* 0 to 2"):
        vlm.visual_residuals([prefix], ["resid/3"])


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model folder .*gone: check the path"):
        load_vlm(str(tmp_path / "gone"))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json is missing or is no model configuration"):
        load_vlm(str(tmp_path))


def test_an_unknown_family(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "teapot"}))
    with pytest.raises(
        UserError, match=r"family 'teapot', which is not supported: use a model of one of perception_lm"
    ):
        load_vlm(str(tmp_path))


def test_no_such_device(tiny_vlm: Path) -> None:
    with pytest.raises(UserError, match="no device 'abacus'"):
        load_vlm(str(tiny_vlm), device="abacus")


def test_damaged_weights(tiny_vlm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vlm"
    shutil.copytree(tiny_vlm, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_vlm(str(folder), device="cpu")
