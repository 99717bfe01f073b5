"""Lists of video ids in every form that was seen."""

from pathlib import Path

import pytest

from collect.data.video_ids import plain_id, read_ids
from collect.errors import UserError

FORMS = {
    "one a line": "video_2\nvideo_1\n",
    "with suffixes, comments and empty lines": "# by hand\nvideo_2.mp4\n\n  video_1.MKV \nvideo_2\n",
    "all in one line, as the challenge's lists": "video_2,video_1\n",
    "in one line, without its end": "video_2, video_1",
    "columns under headings": "video_id,task\nvideo_2,mc\nvideo_1,mc\n",
    "quoted": '"video_2"\n"video_1"\n',
    "with a byte-order mark and Windows line ends": "\ufeffvideo_2\r\nvideo_1\r\n",
    "a heading alone": "video\nvideo_2\nvideo_1",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_forms_of_a_list(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ids.csv"
    path.write_bytes(text.encode())
    assert read_ids(path) == ("video_2", "video_1")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "names no video"),
        (b"# nothing\n\n", "names no video"),
        (b"video_id\n", "names no video"),
        (b"\xff\xfe\x00a", "cannot be read as a list of video ids"),
        (b"a\0b", "cannot be read as a list of video ids"),
    ],
)
def test_what_is_no_list(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as info:
        read_ids(path)
    assert str(path) in str(info.value)


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a file"):
        read_ids(tmp_path)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("video_1.mp4", "video_1"),
        ("a/b.MOV", "a/b"),
        ("v1.2", "v1.2"),
        (".mp4", ".mp4"),
        (" x ", "x"),
        ("a.b.webm", "a.b"),
    ],
)
def test_ids_without_the_suffix_of_a_file(name: str, plain: str) -> None:
    assert plain_id(name) == plain
