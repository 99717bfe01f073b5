import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from collect.errors import UserError
from collect.vlm import VideoVlm, VlmFamily, load_vlm, require_sites
from collect.vlm.check import check_prefix
from collect.vlm.conformance import clip_of, noise


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


def test_the_names_of_sites_are_checked_without_the_weights(tiny_vlm: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_vlm, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    model = str(tmp_path / "model")
    require_sites(model, ("projector", "resid_pre/0", "resid/2", "vision/0"))
    for name in ("resid/3", "resid/-1", "layers/1"):
        with pytest.raises(UserError, match=rf"no site '{name}' in this model: .* 0 to 2"):
            require_sites(model, ("projector", name))


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model folder .*gone: check the path"):
        load_vlm(str(tmp_path / "gone"))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json is missing or is no model configuration"):
        load_vlm(str(tmp_path))


def test_an_unknown_family(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "teapot"}))
    with pytest.raises(
        UserError, match=r"family 'teapot', which is not supported: use a model of one of .*, perception_lm, "
    ):
        load_vlm(str(tmp_path))


def test_no_such_device(tiny_vlm: Path) -> None:
    with pytest.raises(UserError, match="--device abacus is not available here"):
        load_vlm(str(tiny_vlm), device="abacus")


def test_damaged_weights(tiny_vlm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vlm"
    shutil.copytree(tiny_vlm, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_vlm(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("tokenizer_config.json", ("video_token",), None),
        ("tokenizer_config.json", ("bos_token",), 7),
        ("processor_config.json", ("pooling_ratio",), "two"),
        ("processor_config.json", ("video_processor", "size"), {"height": 0, "width": 32}),
        ("processor_config.json", ("video_processor", "image_mean"), [0.5, 0.5]),
        ("config.json", ("video_token_id",), 10**6),
    ],
)
def test_a_damaged_processor_is_refused_with_the_models_name(
    name: str, place: tuple[str, ...], value: Any, tiny_vlm: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_vlm, tmp_path / "vlm"))
    content: dict[str, Any] = json.loads((folder / name).read_text())
    inner = functools.reduce(lambda found, key: found[key], place[:-1], content)
    assert place[-1] in inner
    inner[place[-1]] = value
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        load_vlm(str(folder), device="cpu")
    assert str(folder) in str(caught.value)


def test_the_check_passes_for_what_was_loaded(vlm: VideoVlm) -> None:
    check_prefix(vlm)


def test_visual_tokens_that_see_the_question_are_refused(tiny_vlm: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_vlm, tmp_path / "vlm"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["is_causal"] = False  # transformers then lets every token see every other one
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"differ by .* its visual tokens see the question"):
        load_vlm(str(folder), device="cpu")


@pytest.mark.parametrize("wrong", ["positions", "blocks"])
def test_the_check_finds_wrong_positions_and_masks(
    wrong: str, tiny_vlms: Callable[[str], VideoVlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = tiny_vlms({"positions": "qwen2_5_vl", "blocks": "gemma3"}[wrong])
    if wrong == "positions":
        monkeypatch.setattr(vlm.family, "position_ids", functools.partial(VlmFamily.position_ids, vlm.family))
    else:
        monkeypatch.setattr(vlm.family, "has_bidirectional_frames", False)
    with pytest.raises(UserError, match="differ by"):
        check_prefix(vlm)


def test_a_processor_that_writes_another_number_of_tokens_is_refused(
    vlm: VideoVlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vlm.family, "n_newlines", 1)
    with pytest.raises(UserError, match="writes 32 visual tokens where perception_lm has 33"):
        vlm.prefix(clip_of([noise(48, 64)] * 2))


def test_flash_attention_is_refused_where_tokens_see_each_other(
    tiny_vlms: Callable[[str], VideoVlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm: Any = tiny_vlms("gemma3")
    monkeypatch.setattr(vlm.model.config.get_text_config(), "_attn_implementation", "flash_attention_2")
    with pytest.raises(UserError, match="flash attention cannot: use --attn-implementation sdpa"):
        type(vlm.family)("tiny", vlm.model, vlm.family.processor)


def test_a_model_can_be_spread_over_all_devices(tiny_vlm: Path, vlm: VideoVlm) -> None:
    spread = load_vlm(str(tiny_vlm), device="spread")
    prefix = vlm.prefix(clip_of([noise(48, 64)] * 2))
    found, expected = (v.visual_residuals([prefix], ["resid/1"])["resid/1"].cpu() for v in (spread, vlm))
    assert torch.allclose(found, expected, atol=1e-4)


def test_quantised_loading_without_its_package(tiny_vlm: Path) -> None:
    pytest.importorskip("accelerate")
    with pytest.raises(UserError, match=r"cannot be loaded .*bitsandbytes"):
        load_vlm(str(tiny_vlm), device="cpu", quantization="8bit")
