from __future__ import annotations

import json
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from browse.gathering.opened import OpenedRun
from browse.media import HIGHEST_PX, Media, copy_clip, encode_clip, shown_size, still
from collect.video.decode import decode_frames
from collect.video.file import DecodeError, read_frames
from tests.collect.video_files import noise, write_video


def frames_of(path: Path) -> tuple[list[float], np.ndarray]:
    with av.open(path) as container:
        frames = list(container.decode(video=0))
        times = [float(Fraction(frame.pts) * frame.time_base) for frame in frames]
        return times, np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def media_of(run: Path, most_bytes: int = 1 << 30) -> Media:
    opened = OpenedRun(run)
    return Media(lambda: opened, run / "media-cache", most_bytes=most_bytes)


def is_there(media: Media, name: str) -> bool:
    """Whether a file can be had, which is made if it is not there."""
    found = media.find(name)
    return found is not None and (found[0] / found[1]).is_file()


def smooth(height: int, width: int, t: int) -> np.ndarray:
    """A frame that compresses well: a ramp, brighter from frame to frame."""
    ramp = np.linspace(0, 150, width)[None, :, None] + np.linspace(0, 50, height)[:, None, None] + 5 * t
    return np.repeat(ramp, 3, axis=2).astype(np.uint8)


def test_a_clip_has_every_frame_at_its_time_and_plays_everywhere(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    write_video(source, [smooth(64, 96, t) for t in range(7)])
    clip = tmp_path / "clip.mp4"
    encode_clip(source, clip)
    with av.open(clip) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert "Baseline" in str(stream.profile)
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert not container.streams.audio
    data = clip.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    times, pixels = frames_of(clip)
    original = read_frames(source, lambda times_s: np.arange(len(times_s)))
    np.testing.assert_allclose(times, original.all_times_s, atol=1e-4)
    assert pixels.shape == original.pixels.shape
    assert np.abs(pixels.astype(int) - original.pixels.astype(int)).mean() < 6


def write_h264(path: Path, frames: list[np.ndarray], **options: str) -> Path:
    """A video as browsers play it, with sound."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = options.get("pixels", "yuv420p")
        sound = container.add_stream("aac", rate=8000, layout="mono")
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    return path


def test_pictures_that_play_already_are_kept_bit_for_bit(tmp_path: Path) -> None:
    source = write_h264(tmp_path / "a.mp4", [smooth(64, 96, t) for t in range(9)])
    clip = tmp_path / "clip.mp4"
    assert copy_clip(source, clip) == {}
    with av.open(clip) as container:
        assert not container.streams.audio
    data = clip.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    for own, expected in zip(frames_of(clip), frames_of(source), strict=True):
        np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((482, 64), {}),  # too high
        ((64, 64), {"pixels": "yuv444p"}),  # browsers do not play it
        ((240, 426), {"g": "250", "keyint_min": "250", "sc_threshold": "0"}),  # 200 frames from a key frame
    ],
)
def test_other_pictures_are_not_copied(size: tuple[int, int], options: dict[str, str], tmp_path: Path) -> None:
    n = 200 if "g" in options else 3
    source = write_h264(tmp_path / "a.mp4", [smooth(*size, t % 20) for t in range(n)], preset="ultrafast", **options)
    assert copy_clip(source, tmp_path / "clip.mp4") is None


def test_a_damaged_or_turned_video_is_not_copied(tmp_path: Path) -> None:
    source = write_h264(tmp_path / "a.mp4", [smooth(64, 96, t) for t in range(9)])
    data = bytearray(source.read_bytes())
    at = data.index(b"mdat")
    data[at + 900 : at + 960] = bytes(60)
    (tmp_path / "damaged.mp4").write_bytes(data)
    assert copy_clip(tmp_path / "damaged.mp4", tmp_path / "clip.mp4") is None
    turn(source)
    assert copy_clip(source, tmp_path / "clip.mp4") is None
    (tmp_path / "text.mp4").write_text("no video")
    assert copy_clip(tmp_path / "text.mp4", tmp_path / "clip.mp4") is None


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((1080, 1920), (480, 854)),
        ((480, 640), (480, 640)),
        ((33, 41), (32, 40)),
        ((1, 1), (2, 2)),
        ((2000, 10), (480, 2)),
    ],
)
def test_sizes_are_even_and_not_too_high(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert shown_size(*size) == shown
    assert shown[0] <= HIGHEST_PX


def turn(path: Path) -> None:
    """Say in the file's track header that its picture is shown turned by a quarter."""
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix comes after 40 bytes
    cells = (0, 1 << 16, 0, -1 << 16, 0, 0, 32 << 16, 0, 1 << 30)
    path.write_bytes(data[:at] + struct.pack(">9i", *cells) + data[at + 36 :])


def test_a_turned_video_is_shown_upright(tmp_path: Path) -> None:
    frame = np.zeros((64, 32, 3), dtype=np.uint8)
    frame[:16] = 220
    source = write_video(tmp_path / "turned.mp4", [frame] * 3)
    turn(source)
    encode_clip(source, tmp_path / "clip.mp4")
    _, pixels = frames_of(tmp_path / "clip.mp4")
    shown = decode_frames(source, [0])[0]
    assert shown.shape == (32, 64, 3)
    assert pixels[0].shape == shown.shape
    assert np.abs(pixels[0].astype(int) - shown.astype(int)).mean() < 8


def test_frames_keep_times_that_are_not_even(tmp_path: Path) -> None:
    frames = [smooth(32, 48, t) for t in range(4)]
    source = write_video(tmp_path / "a.mp4", frames, times_ms=[0, 40, 500, 1700])
    encode_clip(source, tmp_path / "clip.mp4")
    np.testing.assert_allclose(frames_of(tmp_path / "clip.mp4")[0], [0, 0.04, 0.5, 1.7], atol=1e-4)


def test_clips_and_stills_are_made_once_and_again_when_the_video_changes(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = media_of(copy)
    videos = Path(shutil.copytree(OpenedRun(copy).video_path("video_0").parents[1], tmp_path / "data"))  # type: ignore[union-attr]
    opened = OpenedRun(copy, data=videos)
    media = Media(lambda: opened, copy / "media-cache", most_bytes=1 << 30)
    found = media.find("clips/video_0.mp4")
    assert found is not None
    clip = found[0] / found[1]
    before = clip.read_bytes()
    sentinel = json.loads(clip.with_suffix(".json").read_text())
    assert sentinel["source"]["bytes"] == (videos / "videos" / "video_0.mp4").stat().st_size

    monkeypatch.setattr("browse.media.encode_clip", _never)
    assert media.find("clips/video_0.mp4") == found
    monkeypatch.undo()

    write_video(videos / "videos" / "video_0.mp4", [smooth(32, 40, t) for t in range(9)])
    assert media.find("clips/video_0.mp4") == found
    assert clip.read_bytes() != before
    assert len(frames_of(clip)[0]) == 9


def _never(*_: object) -> None:
    raise AssertionError("it was made again")


def test_a_clip_without_its_sentinel_is_made_again(copy: Path) -> None:
    media = media_of(copy)
    assert is_there(media, "clips/video_1.mp4")
    clip = copy / "media-cache" / "clips" / "video_1.mp4"
    whole = clip.read_bytes()
    clip.write_bytes(b"half")
    clip.with_suffix(".json").unlink()
    assert is_there(media, "clips/video_1.mp4")
    assert clip.read_bytes() == whole


def test_stills_are_the_frames_that_the_model_saw(copy: Path) -> None:
    media = media_of(copy)
    opened = OpenedRun(copy)
    record, path = opened.record_of["video_2"], opened.video_path("video_2")
    assert path is not None
    for t in range(record.grid.n_t):
        found = media.find(f"stills/video_2/{t}.jpg")
        assert found is not None
        wanted = still(decode_frames(path, [int(record.grid.frame_ids[t])])[0])
        assert (found[0] / found[1]).read_bytes() == wanted
    assert media.find(f"stills/video_2/{record.grid.n_t}.jpg") is None


@pytest.mark.parametrize("is_playable", [True, False])
def test_clip_and_stills_made_together_are_those_made_one_by_one(
    is_playable: bool, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OpenedRun(copy)
    data = opened.video_path("video_2").parents[1]  # type: ignore[union-attr]
    videos = Path(shutil.copytree(data, tmp_path / "data"))
    opened = OpenedRun(copy, data=videos)
    record, path = opened.record_of["video_2"], videos / "videos" / "video_2.mp4"
    frames = [smooth(48, 64, t) for t in range(int(record.grid.frame_ids.max()) + 1)]
    write_h264(path, frames, **({} if is_playable else {"pixels": "yuv444p"}))
    one_by_one = Media(lambda: opened, tmp_path / "one", most_bytes=1 << 30)
    names = ["clips/video_2.mp4", *(f"stills/video_2/{t}.jpg" for t in range(record.grid.n_t))]
    assert all(is_there(one_by_one, name) for name in names)
    if is_playable:
        monkeypatch.setattr("browse.media.decode_frames", _never)
    together = Media(lambda: opened, tmp_path / "together", most_bytes=1 << 30)
    assert together.make("video_2")
    assert (copy_clip(path, tmp_path / "x.mp4") is not None) == is_playable
    for name in names:
        assert (tmp_path / "together" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    assert not together.make("video_none")


def test_what_cannot_be_decoded_is_tried_once(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = OpenedRun(copy)
    data = opened.video_path("video_0").parents[1]  # type: ignore[union-attr]
    videos = Path(shutil.copytree(data, tmp_path / "data"))
    path = videos / "videos" / "video_3.mp4"
    path.write_bytes(b"\0" * path.stat().st_size)
    opened = OpenedRun(copy, data=videos)
    media = Media(lambda: opened, copy / "media-cache", most_bytes=1 << 30)
    assert media.find("clips/video_3.mp4") is None
    assert "error" in json.loads((copy / "media-cache" / "clips" / "video_3.json").read_text())
    monkeypatch.setattr("browse.media.encode_clip", _never)
    assert media.find("clips/video_3.mp4") is None
    with pytest.raises(DecodeError):
        encode_clip(path, tmp_path / "x.mp4")


def test_no_more_is_kept_than_allowed_and_the_oldest_goes_first(copy: Path) -> None:
    whole = media_of(copy)
    assert is_there(whole, "clips/video_0.mp4")
    size = whole.kept_bytes("video_0")
    shutil.rmtree(copy / "media-cache")
    media = media_of(copy, most_bytes=int(2.5 * size))
    for number in (0, 1):
        assert is_there(media, f"clips/video_{number}.mp4")
    assert is_there(media, "clips/video_0.mp4")  # looked at again
    assert is_there(media, "clips/video_2.mp4")
    assert sorted(path.name for path in (copy / "media-cache" / "clips").glob("*.mp4")) == [
        "video_0.mp4",
        "video_2.mp4",
    ]
    assert sum(path.stat().st_size for path in (copy / "media-cache").rglob("*") if path.is_file()) <= 2.5 * size


@pytest.mark.parametrize(
    "name",
    [
        "clips/../clips/video_0.mp4",
        "/clips/video_0.mp4",
        "clips/none.mp4",
        "clips/video_0.json",
        "stills/video_0/x.jpg",
        "stills/video_0/99.jpg",
        "features/none/a.jpg",
        "features",
        "other/video_0.mp4",
        "",
    ],
)
def test_other_names_have_no_file(copy: Path, name: str) -> None:
    assert not is_there(media_of(copy), name)


def test_noise_survives_a_still() -> None:
    frame = noise(600, 40, seed=1)
    assert len(still(frame)) > 100
