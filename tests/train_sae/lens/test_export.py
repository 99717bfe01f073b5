"""The SAELens folder, judged by SAELens itself."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from tests.train_sae.conftest import random_sae
from train_sae.config import Architecture
from train_sae.lens.export import save_sae
from train_sae.lens.module import LENS_FORMAT
from train_sae.sae import Sae


@pytest.mark.filterwarnings("ignore")  # the libraries that sae_lens imports warn about themselves
def test_sae_lens_loads_every_architecture_encodes_alike_and_keeps_our_metadata(tmp_path: Path) -> None:
    import sae_lens

    x = 2 * torch.randn(200, 12, generator=torch.Generator().manual_seed(3))
    inference = {"batchtopk": "jumprelu", "matryoshka_batchtopk": "jumprelu", "frozen_decoder": "jumprelu"}
    for arch in get_args(Architecture):
        ours = random_sae(arch)
        save_sae(tmp_path / arch, ours, torch.full((40,), 0.1))
        theirs = sae_lens.SAE.load_from_disk(str(tmp_path / arch))
        f = ours.encode(x)
        assert 0 < int((f > 0).sum()) < f.numel()
        torch.testing.assert_close(theirs.encode(x), f, rtol=0, atol=1e-5)
        torch.testing.assert_close(theirs(x), ours.decode(f), rtol=0, atol=1e-5)
        assert theirs.cfg.architecture() == inference.get(arch, arch)
        kept = theirs.cfg.metadata.to_dict()
        assert ours.metadata.items() <= kept.items()
        assert (kept["model_name"], kept["hook_name"], kept["store_fingerprint"]) == ("a-model", "resid/3", "abc")
        assert kept["normalization"] == {"kind": "expected_average_only_in", "scale": 0.5, "folded": True}


def test_the_format_is_that_of_a_release_after_six(sae: Sae, tmp_path: Path) -> None:
    save_sae(tmp_path, sae, torch.zeros(sae.d_sae))
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    assert cfg["metadata"]["sae_lens_version"] == LENS_FORMAT
    assert int(LENS_FORMAT.split(".")[0]) >= 6
    assert cfg["dtype"] == "float32"


def test_threshold_is_written_for_jumprelu_only(tmp_path: Path) -> None:
    for arch in get_args(Architecture):
        expected = random_sae(arch).architecture == "jumprelu"
        save_sae(tmp_path / arch, random_sae(arch), torch.zeros(40))
        assert ("threshold" in load_file(tmp_path / arch / "sae_weights.safetensors")) is expected


def test_sparsity_is_the_logarithm_of_the_firing_rate(sae: Sae, tmp_path: Path) -> None:
    rate = torch.zeros(sae.d_sae)
    rate[:2] = torch.tensor([1.0, 0.001])
    save_sae(tmp_path, sae, rate)
    sparsity = load_file(tmp_path / "sparsity.safetensors")["sparsity"]
    assert sparsity[:3].tolist() == pytest.approx([0, -3, -10], abs=1e-5)


def test_the_folder_of_an_equal_sae_is_equal_byte_for_byte(sae: Sae, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_sae(tmp_path / name, sae, torch.zeros(sae.d_sae))
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
