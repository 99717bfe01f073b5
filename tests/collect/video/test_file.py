from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from collect.video import file as video_file
from collect.video.decode import decode_clip, decode_frames
from collect.video.file import DecodeError, probe
from collect.video.sampling import FrameSampling
from tests.collect.untruths import sequential
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
    monkeypatch.setattr(video_file, "decode_wanted", lambda *_: None)
    assert np.array_equal(quick, decode_frames(video, ids))


def test_a_stream_of_no_known_format_is_refused(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", numbered(3))
    content = video.read_bytes()
    place = content.rfind(b"avc1")  # of the sample description
    video.write_bytes(content[:place] + b"zzzz" + content[place + 4 :])
    for read in (probe, lambda path: decode_frames(path, [0])):
        with pytest.raises(DecodeError, match=r"v\.mp4 .*its video stream does not say in which format it is"):
            read(video)


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


FAST = {
    "libx264": {"crf": "4", "g": "12", "bf": "3"},
    "libx265": {"crf": "4", "preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "4", "b": "4M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12", "crf": "10", "svtav1-params": "lp=1"},
    "mpeg4": {"qmin": "1", "qmax": "2"},
}


# Of these, Matroska, WebM and fragmented MP4 do not say how many frames they hold.
@pytest.mark.parametrize(
    ("codec", "suffix", "container_options", "says_n"),
    [
        ("libx264", ".mp4", {}, True),
        ("libx264", ".mkv", {}, False),
        ("libx264", ".mp4", {"movflags": "frag_keyframe+empty_moov"}, False),
        ("libx264", ".mov", {}, True),
        ("libx265", ".mp4", {}, True),
        ("libx265", ".mkv", {}, False),
        ("libvpx", ".webm", {}, False),
        ("libvpx-vp9", ".webm", {}, False),
        ("libvpx-vp9", ".mp4", {}, True),
        ("libsvtav1", ".mp4", {}, True),
        ("libsvtav1", ".webm", {}, False),
        ("mpeg4", ".mp4", {}, True),
        ("mpeg4", ".avi", {}, True),
    ],
)
def test_codecs_and_containers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], codec: str, suffix: str, container_options: Any, says_n: bool
) -> None:
    try:
        av.codec.Codec(codec, "w")
    except av.error.FFmpegError:
        pytest.skip(f"PyAV has no encoder {codec}")
    video = write_video(
        tmp_path / f"v{suffix}",
        numbered(30, height=96, width=128),
        codec=codec,
        options=FAST[codec],
        container_options=container_options,
    )
    capfd.readouterr()  # encoders print what they like
    assert (probe(video).n_frames > 0) == says_n
    clip = decode_clip(video, "v", frames=FrameSampling.parse("0,1,13,14,29"))
    assert [number_of(f) for f in clip.frames] == clip.frame_ids.tolist() == [0, 1, 13, 14, 29]
    assert np.allclose(clip.times_s, clip.frame_ids / 30, atol=6e-4)  # Matroska rounds to milliseconds
    assert clip.n_frames == 30


@pytest.mark.parametrize(
    ("height", "width", "codec"), [(50, 70, "libx264"), (51, 71, "libvpx-vp9"), (97, 33, "mpeg4"), (128, 72, "libx264")]
)
def test_sizes_that_no_codec_block_divides_and_portrait(tmp_path: Path, height: int, width: int, codec: str) -> None:
    video = write_video(
        tmp_path / ("v.webm" if codec == "libvpx-vp9" else "v.mp4"),
        numbered(3, height=height, width=width),
        codec=codec,
        options=FAST[codec],
    )
    clip = decode_clip(video, "v", frames=2)
    assert clip.frames.shape == (2, height, width, 3)
    assert (clip.height, clip.width) == (height, width)
    assert [number_of(f) for f in clip.frames] == [0, 2]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_truncated_file_without_a_frame_count_ends_where_it_ends(tmp_path: Path, suffix: str) -> None:
    """Such a file cannot be told from a shorter one; what decodes is right, or the file is refused."""
    options = {"movflags": "frag_keyframe+empty_moov"} if suffix == ".mp4" else {}
    frames = [np.roll(noise(96, 128, seed=i), 3 * i, axis=1) for i in range(40)]
    whole = write_video(tmp_path / f"w{suffix}", frames, options={"crf": "4", "g": "8"}, container_options=options)
    cut = tmp_path / f"c{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    clip = decode_clip(cut, "c", frames=4)
    assert 8 <= clip.n_frames < 40
    assert np.array_equal(clip.frames, decode_frames(whole, clip.frame_ids.tolist()))


def test_titles_in_another_encoding_do_not_matter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "latin.mp4", numbered(6), options=EXACT)
    content = path.read_bytes()
    assert content.count(b"Lavf") == 1  # the encoder's name, among the titles
    path.write_bytes(content.replace(b"Lavf", b"\xb6\xe9vf"))
    assert decode_clip(path, "latin", frames=6).n_frames == 6


def test_sound_beside_the_picture_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "both.mp4"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=30, options={"crf": "4"})
        picture.height, picture.width, picture.pix_fmt = 48, 64, "yuv420p"
        sound = container.add_stream("aac", rate=44100)
        for i, image in enumerate(numbered(6)):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 44100, 1024 * i
            container.mux(sound.encode(frame))
        container.mux(picture.encode())
        container.mux(sound.encode())
    clip = decode_clip(path, "both", frames=6)
    assert [number_of(f) for f in clip.frames] == [0, 1, 2, 3, 4, 5]


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


def test_a_file_whose_frames_end_early_is_taken_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", [noise(48, 64, seed=i) for i in range(40)], options=EXACT)
    whole = decode_frames(path, range(40))
    data = path.read_bytes()
    at = data.index(b"moov") - 4
    head, moov = data[:at], data[at:]  # the encoder puts the index last
    path.write_bytes(head[: len(head) // 2] + bytes(len(head) - len(head) // 2) + moov)
    clip = decode_clip(path, "v", frames=8)
    assert 15 <= clip.frame_ids[-1] < 20
    assert np.array_equal(clip.frames, whole[clip.frame_ids])


def test_what_refers_to_a_damaged_picture_is_passed_over_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [np.roll(noise(96, 128), 5 * i, axis=1) for i in range(40)]
    path = write_video(tmp_path / "v.mp4", frames, options={"g": "40", "crf": "10"})
    whole = decode_frames(path, range(40))
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + data.index(b"moov")) // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(bytes(data))
    clip = decode_clip(path, "v", frames=8)
    assert 8 <= clip.frame_ids[-1] < 30
    assert clip.n_frames == 40
    assert np.array_equal(clip.frames, whole[clip.frame_ids])
    assert f"{path}: {39 - clip.frame_ids[-1]} of its 40 frames are damaged" in caplog.text


def test_times_that_were_made_up_from_the_decoding_order_lose_against_the_decoder(tmp_path: Path) -> None:
    options = {"crf": "4", "g": "12", "bf": "3", "x264-params": "b-adapt=0"}
    good = write_video(tmp_path / "good.mp4", numbered(40), options=options)
    bad = tmp_path / "bad.mp4"
    with av.open(str(good)) as source, av.open(str(bad), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts = packet.dts  # as a remux of an AVI has them
                packet.stream = stream
                target.mux(packet)
    shown = [number_of(frame) for frame in sequential(bad)]
    assert shown == sorted(shown)
    clip = decode_clip(bad, "v", 8)
    assert [number_of(frame) for frame in clip.frames] == [shown[i] for i in clip.frame_ids]


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((-1, 0, 0, 1), (0, 1)), ((1, 0, 0, -1), (1, 0)), ((0, 1, 1, 0), (0, 0)), ((0, -1, -1, 0), (1, 1))],
)
def test_mirrors_are_applied_to_picture_and_size(
    tmp_path: Path, matrix: tuple[int, int, int, int], corner: tuple[int, int]
) -> None:
    image = np.zeros((48, 80, 3), dtype=np.uint8)
    image[:24, :40] = 250
    video = write_video(tmp_path / "m.mp4", [image] * 2, options=EXACT)
    rotate_header(video, matrix)
    clip = decode_clip(video, "m", 1)
    assert (clip.height, clip.width) == ((48, 80) if matrix[0] else (80, 48))
    facts = probe(video)
    assert (facts.height, facts.width) == (clip.height, clip.width)
    quarters = clip.frames[0].reshape(2, clip.height // 2, 2, clip.width // 2, 3).mean(axis=(1, 3, 4))
    assert divmod(int(quarters.argmax()), 2) == corner


@pytest.mark.parametrize("lost", [0, 20, 39])
@pytest.mark.parametrize("word", ["1", "8", "40", "10fps", "0,20,39"])
def test_one_damaged_picture_is_passed_over_whatever_is_asked(tmp_path: Path, lost: int, word: str) -> None:
    path = write_video(tmp_path / "v.mp4", numbered(40), options=EXACT)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    start, size = places[lost]
    assert start is not None
    data[start : start + size] = bytes(size)
    path.write_bytes(bytes(data))
    clip = decode_clip(path, "v", FrameSampling.parse(word))
    assert lost not in clip.frame_ids
    assert [number_of(frame) for frame in clip.frames] == clip.frame_ids.tolist()
    assert np.allclose(clip.times_s, clip.frame_ids / 30)
    assert clip.n_frames == 40
    with pytest.raises(DecodeError, match=f"Frame {lost} of .* is damaged"):
        decode_frames(path, [lost])


def test_an_encrypted_file_is_called_so(tmp_path: Path) -> None:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    path = write_video(tmp_path / "v.mp4", numbered(4), container_options=key)
    with pytest.raises(DecodeError, match=r"v\.mp4 is encrypted: decrypt it"):
        decode_clip(path, "v", 2)


def test_an_empty_file_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    _assert_refused(tmp_path / "v.mp4", "it is empty")


def test_a_playlist_under_a_videos_name_leads_nowhere(tmp_path: Path) -> None:
    inner = write_video(tmp_path / "inner.ts", numbered(4))
    path = tmp_path / "v.mp4"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/{inner.name}\n#EXT-X-ENDLIST\n")
    _assert_refused(path, "cannot be decoded")
