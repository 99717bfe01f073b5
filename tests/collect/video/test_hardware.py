"""Decoding on a GPU: what can be told without one."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec.hwaccel import HWAccel

from collect.config import CollectConfig
from collect.errors import UserError
from collect.run import collect
from collect.video import file, hardware
from collect.video.display import shown_image
from collect.video.file import read_frames
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


def test_a_core_does_not_stand_in_when_the_gpu_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the driver lacks its decoder, FFmpeg would take a core instead, and nobody would know."""
    asked: list[bool] = []

    def refuse(*_: object, hwaccel: HWAccel, **__: object) -> None:
        asked.append(hwaccel.allow_software_fallback)
        raise av.error.ExternalError(1, "no decoder")

    monkeypatch.setattr(hardware, "hwdevices_available", lambda: ["cuda"])
    clip = hardware._clip()
    monkeypatch.setattr(hardware, "_clip", lambda: clip)
    monkeypatch.setattr(hardware.av, "open", refuse)
    with pytest.raises(UserError, match="no GPU that decodes videos can be reached"):
        require_decoder("cuda")
    assert asked == [False]


def test_an_older_pyav_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "hwdevices_available", lambda: ["cuda"])
    monkeypatch.setattr(hardware.av, "__version__", "17.1.0")
    with pytest.raises(UserError, match=r"needs PyAV 18\.0, 17\.1\.0 is installed: upgrade it"):
        require_decoder("cuda")


@pytest.mark.parametrize(("codec", "is_tried"), [("libx264", True), ("libx265", True), ("mpeg4", False)])
def test_a_core_decodes_what_the_gpu_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, codec: str, is_tried: bool
) -> None:
    path = write_video(tmp_path / "a.mp4", [noise(64, 64, seed=seed) for seed in range(4)], codec=codec)
    expected = read_frames(path, lambda times_s: np.arange(len(times_s)))
    opened, tried = av.open, list[bool]()

    def without_memory(*arguments: Any, hwaccel: HWAccel | None, **rest: Any) -> Any:
        if hwaccel is not None:
            tried.append(hwaccel.allow_software_fallback)
            raise av.error.MemoryError(12, "Cannot allocate memory")
        return opened(*arguments, **rest)

    monkeypatch.setattr(file.av, "open", without_memory)
    file._warn_of_gpu.cache_clear()
    for _ in range(2):
        found = read_frames(path, lambda times_s: np.arange(len(times_s)), hwaccel=accelerator("cuda", 0))
        np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert tried == [True, True] * is_tried
    warned = [record.getMessage() for record in caplog.records if "the GPU does not decode" in record.getMessage()]
    assert len(warned) == is_tried  # once, however many videos there are
