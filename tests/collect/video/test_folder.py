import logging
import os
from pathlib import Path

import pytest

from collect.errors import UserError
from collect.video.folder import find_videos, listed, log_passed_over, no_videos


def put(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def test_ids_are_paths_without_suffix_in_all_folders_and_formats(tmp_path: Path) -> None:
    put(tmp_path, "b.mp4", "a.GIF", "class a/clip 1.ts", "class a/deep/über.webm", "v1.2.mkv", "old.3gp", "raw.h264")
    found = find_videos(tmp_path)
    assert list(found.paths) == ["a", "b", "class a/clip 1", "class a/deep/über", "old", "raw", "v1.2"]
    assert found.paths["class a/clip 1"] == tmp_path / "class a" / "clip 1.ts"
    assert found.passed_over == ()


def test_the_folder_videos_is_taken_where_there_is_one(tmp_path: Path) -> None:
    put(tmp_path, "videos/v.mp4", "other/w.mp4")
    assert list(find_videos(tmp_path).paths) == ["v"]


def test_files_that_are_passed_over_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(
        tmp_path, "v.mp4", "all_valid.json", "notes.txt", ".hidden.mp4", ".trash/w.mp4", "a/song.mp3", "bad\x1b[31m.zip"
    )
    found = find_videos(tmp_path)
    with caplog.at_level(logging.WARNING):
        log_passed_over(found)
    assert list(found.paths) == ["v"]
    assert {path.name for path in found.beside} == {"all_valid.json", "notes.txt"}
    assert {path.name for path in found.passed_over} == {"song.mp3", "bad\x1b[31m.zip"}
    assert len(caplog.records) == 1
    assert "song.mp3" in caplog.text
    assert "\x1b" not in caplog.text
    assert "\\x1b[31m.zip" in caplog.text


def test_of_many_files_some_are_named() -> None:
    assert listed([Path(f"{i}.zip") for i in range(9)]) == "0.zip, 1.zip, 2.zip, 3.zip, 4.zip and 4 more"


def test_a_name_that_is_not_utf_8_is_passed_over_with_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "v.mp4")
    name = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    found = find_videos(tmp_path)
    log_passed_over(found)
    assert list(found.paths) == ["v"]
    assert "rename them" in caplog.text
    assert "caf\\udce9.mp4" in caplog.text
    (tmp_path / "v.mp4").unlink()
    assert "caf\\udce9.mp4" in str(no_videos(tmp_path, find_videos(tmp_path)))


def test_two_files_of_one_id_are_refused_with_both_names(tmp_path: Path) -> None:
    put(tmp_path, "a/v.mp4", "a/v.webm")
    with pytest.raises(UserError, match=r"v\.mp4 and .*v\.webm have one name"):
        find_videos(tmp_path)


def test_one_name_in_two_folders_is_two_videos(tmp_path: Path) -> None:
    found = find_videos(put(tmp_path, "a/v.mp4", "b/v.mp4", "b/w.mp4"))
    assert list(found.paths) == ["a/v", "b/v", "b/w"]
    assert found.of("b/v") == tmp_path / "b" / "v.mp4"
    assert found.of("w") == tmp_path / "b" / "w.mp4"
    assert found.of("gone") is None
    with pytest.raises(UserError, match="may each be the annotated video 'v'"):
        found.of("v")


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    data = put(tmp_path / "data", "v.mp4")
    elsewhere = put(tmp_path / "elsewhere", "w.mp4")
    (data / "more").symlink_to(elsewhere)
    (data / "again").symlink_to(data)
    (data / "broken.mp4").symlink_to(tmp_path / "nothing.mp4")
    assert list(find_videos(data).paths) == ["more/w", "v"]


def test_names_of_videos_without_a_file_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "v.mp4")
    (tmp_path / "broken.mp4").symlink_to(tmp_path / "nothing.mp4")
    (tmp_path / "circle.webm").symlink_to(tmp_path / "circle.webm")
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nothing.txt")
    os.mkfifo(tmp_path / "pipe.gif")
    found = find_videos(tmp_path)
    log_passed_over(found)
    assert [path.name for path in found.passed_over] == ["broken.mp4", "circle.webm", "pipe.gif"]
    assert list(found.paths) == ["v"]
    (record,) = caplog.records
    assert "there is no file at these names (links to nothing, or pipes): " in record.getMessage()
    assert all(name in caplog.text for name in ("broken.mp4", "circle.webm", "pipe.gif"))
