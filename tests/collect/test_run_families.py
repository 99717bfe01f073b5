"""Real clips through models of several families from the command line, against the own pass of the same model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import video_sae
from collect.reading import ActivationStore
from collect.video.decode import decode_clip
from collect.vlm import VideoVlm
from collect.vlm.conformance import close
from tests.collect.video_files import EXACT, noise, write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A landscape, a portrait and an odd-sized video; they make batches of several layouts."""
    folder = tmp_path_factory.mktemp("shapes")
    for name, (height, width) in {"a": (48, 64), "b": (64, 48), "c": (48, 64), "d": (50, 94)}.items():
        frames = [noise(height, width, seed=ord(name) + t) for t in range(12)]
        write_video(folder / f"{name}.mp4", frames, options=EXACT)
    return folder


@pytest.mark.parametrize(
    ("family", "sites"),
    [
        ("perception_lm", ("resid/1", "attn_out/0")),
        ("qwen2_5_vl", ("resid/1", "mlp_out/0")),
        ("llava_onevision", ("resid/1", "projector")),
        ("qwen3_vl", ("resid/0", "resid_pre/1")),
        ("qwen2_5_vl", ("vision/0", "vision/1")),
        ("llava_onevision", ("vision/1",)),
    ],
)
def test_a_store_holds_what_the_model_sees(
    family: str,
    sites: tuple[str, ...],
    folder: Path,
    tmp_path: Path,
    tiny_folders: Callable[[str], Path],
    tiny_vlms: Callable[[str], VideoVlm],
) -> None:
    words = f"collect --data {folder} --model {tiny_folders(family)} --sites {' '.join(sites)} --out {tmp_path}"
    assert video_sae.main([*words.split(), "--frames", "5", "--device", "cpu", "--shard-rows", "256"]) == 0
    store, vlm = ActivationStore.open(tmp_path / "activations"), tiny_vlms(family)
    assert {record.video_id for record in store.videos} == {"a", "b", "c", "d"}
    for record in store.videos:
        prefix = vlm.prefix(decode_clip(folder / f"{record.video_id}.mp4", record.video_id, 5))
        grid = vlm.grid(prefix, sites[0])
        rows = store.rows_of(record.video_id)
        assert rows.stop - rows.start == grid.n_tokens
        assert np.array_equal(record.grid.boxes, grid.boxes)
        assert np.array_equal(record.grid.spans_s, grid.spans_s)
        for site, expected in vlm.visual_residuals([prefix], sites).items():
            stored = torch.as_tensor(store.read(site, rows.start, rows.stop))
            assert close(stored, expected[0]), (record.video_id, site)


def test_sites_of_the_tower_and_of_the_decoder_are_not_mixed(
    folder: Path, tmp_path: Path, tiny_folders: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"collect --data {folder} --model {tiny_folders('perception_lm')} --sites vision/0 resid/1 --out {tmp_path}"
    assert video_sae.main([*words.split(), "--device", "cpu"]) == 2
    assert "collect them into a run of their own" in capsys.readouterr().err
