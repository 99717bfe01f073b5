from pathlib import Path

import av
import numpy as np
import pytest

from collect import video_file
from collect.decode import decode_clip, decode_frames
from collect.video_file import DecodeError, probe
from tests.collect.video_files import EXACT, noise, number_of, numbered, rotate_header, write_video

LONG_GROUPS = {"crf": "4", "g": "12", "bf": "3"}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty numbered frames in groups of twelve with B-frames."""
    return write_video(tmp_path_factory.mktemp("video") / "v.mp4", numbered(40), options=LONG_GROUPS)


@pytest.mark.parametrize(
    "options", [LONG_GROUPS, EXACT, {"preset": "ultrafast"}, {"g": "12", "x264-params": "open-gop=1"}]
)
def test_skipping_what_is_not_wanted_changes_no_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    frames = [np.roll(noise(48, 64), 3 * i, axis=1) for i in range(40)]
    video = write_video(tmp_path / "v.mp4", frames, options=options)
    ids = [7, 8, 23, 24, 39, 11]
    quick = decode_frames(video, ids)
    monkeypatch.setattr(video_file, "_decode_few", lambda *_: None)
    assert np.array_equal(quick, decode_frames(video, ids))


def test_variable_frame_rate_gives_true_times(tmp_path: Path) -> None:
    times_ms = [0, 40, 50, 400, 1000, 1010]
    video = write_video(tmp_path / "vfr.mp4", numbered(6), times_ms=times_ms, options={"crf": "4"})
    clip = decode_clip(video, "vfr", frames=6)
    assert np.allclose(clip.times_s * 1000, times_ms, atol=0.5)
    assert [number_of(f) for f in clip.frames] == [0, 1, 2, 3, 4, 5]


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    video = write_video(tmp_path / "late.mkv", numbered(3), times_ms=[500, 600, 800], options={"crf": "4"})
    assert np.allclose(decode_clip(video, "late", frames=3).times_s, [0.0, 0.1, 0.3])


# The marker stands at the top left before rotation; where it goes follows from ISO 14496-12's x' = a x + c y.
@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), ("top", "left")),
        ((0, 1, -1, 0), ("top", "right")),
        ((-1, 0, 0, -1), ("bottom", "right")),
        ((0, -1, 1, 0), ("bottom", "left")),
    ],
)
def test_rotation_metadata_is_applied(
    tmp_path: Path, matrix: tuple[int, int, int, int], corner: tuple[str, str]
) -> None:
    image = np.zeros((48, 80, 3), dtype=np.uint8)
    image[:16, :16] = 255
    video = write_video(tmp_path / "r.mp4", [image] * 2, options=EXACT)
    rotate_header(video, matrix)
    frame = decode_clip(video, "r", frames=1).frames[0]
    assert frame.shape[:2] == ((48, 80) if matrix[0] else (80, 48))
    rows = slice(0, 12) if corner[0] == "top" else slice(-12, None)
    cols = slice(0, 12) if corner[1] == "left" else slice(-12, None)
    assert frame[rows, cols].min() > 200
    assert frame.mean() < 60  # the rest is black


@pytest.mark.parametrize(("codec", "suffix"), [("mpeg4", ".mp4"), ("libvpx-vp9", ".webm"), ("mpeg4", ".avi")])
def test_other_codecs_and_containers(tmp_path: Path, codec: str, suffix: str) -> None:
    options = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx-vp9" else {"qmin": "1", "qmax": "2"}
    video = write_video(tmp_path / f"v{suffix}", numbered(12), codec=codec, options=options)
    clip = decode_clip(video, "v", frames=3)
    assert clip.frame_ids.tolist() == [0, 6, 11]  # 5.5 rounds to even
    assert [number_of(f) for f in clip.frames] == [0, 6, 11]


def test_a_size_that_no_codec_block_divides(tmp_path: Path) -> None:
    video = write_video(tmp_path / "odd.mp4", numbered(3, height=50, width=70), options={"crf": "4"})
    assert decode_clip(video, "odd", frames=2).frames.shape == (2, 50, 70, 3)


def test_probe_reads_the_header(video: Path) -> None:
    facts = probe(video)
    assert (facts.frame_rate, facts.n_frames, facts.height, facts.width) == (30.0, 40, 48, 64)


def _assert_refused(path: Path, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason) as info:
        decode_clip(path, "bad", frames=8)
    assert str(path) in str(info.value)
    assert "replace the file" in str(info.value) or "check the path" in str(info.value)


def test_a_missing_file(tmp_path: Path) -> None:
    _assert_refused(tmp_path / "gone.mp4", "does not exist")


@pytest.mark.parametrize("content", [b"", b"hello " * 100, bytes(4096)])
def test_a_file_that_is_not_a_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.mp4"
    path.write_bytes(content)
    _assert_refused(path, "cannot be decoded as a video")


def test_a_file_with_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    _assert_refused(path, "no video stream")


def test_a_truncated_file(video: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    path.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    _assert_refused(path, "cannot be decoded as a video")


def test_a_file_whose_frames_end_early(tmp_path: Path) -> None:
    frames = [noise(48, 64, seed=i) for i in range(40)]
    path = write_video(tmp_path / "v.mp4", frames, options=EXACT)
    data = path.read_bytes()
    at = data.index(b"moov") - 4
    head, moov = data[:at], data[at:]  # the encoder puts the index last
    path.write_bytes(head[: len(head) // 2] + bytes(len(head) - len(head) // 2) + moov)
    _assert_refused(path, "damaged|cannot be decoded")


def test_flipped_bits_before_a_wanted_frame(tmp_path: Path) -> None:
    frames = [np.roll(noise(96, 128), 5 * i, axis=1) for i in range(40)]
    path = write_video(tmp_path / "v.mp4", frames, options={"g": "40", "crf": "10"})
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + data.index(b"moov")) // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(bytes(data))
    _assert_refused(path, "damaged|Invalid data")
