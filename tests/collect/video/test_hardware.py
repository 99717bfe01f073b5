"""Decoding on a GPU: what can be told without one."""

from pathlib import Path

import av
import numpy as np
import pytest

from collect.config import CollectConfig
from collect.errors import UserError
from collect.run import collect
from collect.video import hardware
from collect.video.display import shown_image
from collect.video.hardware import accelerator, require_decoder
from tests.collect.video_files import noise, write_video

COLOURS = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize(("given", "planar"), [("nv12", "yuv420p"), ("p010le", "yuv420p10le")])
def test_a_gpus_layout_of_colours_gives_the_same_picture(given: str, planar: str) -> None:
    frame = av.VideoFrame.from_ndarray(COLOURS, format="rgb24").reformat(format=planar)
    np.testing.assert_array_equal(shown_image(frame.reformat(format=given)), shown_image(frame))


def test_ffmpeg_itself_would_give_another_one() -> None:
    frame = av.VideoFrame.from_ndarray(COLOURS, format="rgb24").reformat(format="yuv420p")
    other = frame.reformat(format="nv12").to_ndarray(format="rgb24")
    assert np.abs(other.astype(int) - shown_image(frame).astype(int)).max() > 20


def test_processor_cores_need_no_device() -> None:
    assert accelerator("cpu") is None
    require_decoder("cpu")


def test_a_machine_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "hwdevices_available", lambda: ["qsv"])
    with pytest.raises(UserError, match="built without it: leave --decoder out"):
        require_decoder("cuda")


def test_a_device_that_cannot_be_opened_is_reported_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_vlm: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    data = tmp_path / "data"
    (data / "videos").mkdir(parents=True)
    write_video(data / "videos" / "a.mp4", [noise(64, 64) for _ in range(4)])
    config = CollectConfig(
        data=data, model=str(tiny_vlm), out=tmp_path / "run", sites=("resid/0",), decoder="cuda", device="cpu"
    )
    with pytest.raises(UserError, match=r"no GPU that decodes videos can be reached|built without it"):
        collect(config)
    assert not (tmp_path / "run" / "activations" / "config.json").exists()
