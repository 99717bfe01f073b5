"""The whole stage against a local server that has a small Perception Test."""

import json
import logging
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import collect.download.unpack
from collect.artefact.lock import writing
from collect.data.perception_test import load_dataset
from collect.download.config import DownloadConfig
from collect.download.published import published_files
from collect.download.run import RECORD_NAME, download
from collect.errors import UserError
from tests.collect.data.test_perception_test import VIDEO
from tests.collect.file_server import FileServer, serving, zip_bytes
from tests.collect.video_files import numbered, write_video


def annotated(video_id: str, *tasks: str) -> dict[str, Any]:
    metadata = {**VIDEO["metadata"], "video_id": video_id, "split": "train"}
    return {"metadata": metadata, **{task: VIDEO[task] for task in tasks}}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("published")
    videos = {f"video_{i}": write_video(folder / f"{i}.mp4", numbered(3 + i)).read_bytes() for i in range(3)}
    everything = {name: annotated(name, "object_tracking", "mc_question") for name in videos}
    questions = {name: annotated(name, "mc_question") for name in videos}
    return {
        "zip_data/sample_videos.zip": zip_bytes({f"sample/{name}.mp4": data for name, data in videos.items()}),
        "zip_data/train_videos.zip": zip_bytes({f"train_videos/{name}.mp4": data for name, data in videos.items()}),
        "zip_data/sample_annotations.zip": zip_bytes(
            {"sample.json": json.dumps(everything).encode()}, compression=zipfile.ZIP_DEFLATED
        ),
        "zip_data/train_annotations.zip": zip_bytes({"all_train.json": json.dumps(everything).encode()}),
        "zip_data/mc_question_train_annotations.zip": zip_bytes(
            {"mc_question_train.json": json.dumps(questions).encode()}
        ),
        "misc/cut_frame_mapping_train.json": b'{"video_1": 2, "video_2": 0}',
        "misc/cut_frame_mapping_valid.json": b"{}",
    }


@pytest.fixture
def server(published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("collect.download.http.LONGEST_PAUSE_S", 0.0)
    with serving(published) as state:
        yield state


def config(server: FileServer, folder: Path, **changes: Any) -> DownloadConfig:
    return DownloadConfig(**{"out": folder / "data", "base_url": server.url + "/", "attempts": 2} | changes)


def test_what_arrives_is_a_dataset(server: FileServer, tmp_path: Path) -> None:
    folder = download(config(server, tmp_path))
    assert folder == tmp_path / "data"
    dataset = load_dataset(folder)
    assert [video.video_id for video in dataset.videos_with_files] == ["video_0", "video_1", "video_2"]
    assert [video.cut_frame for video in dataset.videos] == [None, 2, None]
    assert len(dataset.videos[0].tracks) == len(dataset.videos[0].questions) == 1
    assert not list((folder / "archives").iterdir())


def test_a_complete_folder_is_left_alone_without_a_network(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    download(config(server, tmp_path))
    server.log.clear()
    with caplog.at_level(logging.INFO):
        download(config(server, tmp_path))
    assert server.log == []
    assert "is complete: nothing to do" in caplog.text


def test_annotations_and_questions_of_their_own_do_not_double_the_questions(server: FileServer, tmp_path: Path) -> None:
    parts = ("videos", "annotations", "mc_question", "cut_frames")
    folder = download(config(server, tmp_path, split=("train",), parts=parts))
    assert sorted(path.name for path in (folder / "annotations").iterdir()) == [
        "all_train.json",
        "mc_question_train.json",
    ]
    assert [len(video.questions) for video in load_dataset(folder).videos] == [1, 1, 1]


def test_a_second_split_joins_the_folder(server: FileServer, tmp_path: Path) -> None:
    download(config(server, tmp_path, parts=("annotations",)))
    download(config(server, tmp_path, split=("train",), parts=("annotations",)))
    record = json.loads((tmp_path / "data" / RECORD_NAME).read_text())["files"]
    assert list(record) == ["zip_data/sample_annotations.zip", "zip_data/train_annotations.zip"]
    assert record["zip_data/train_annotations.zip"]["files"].keys() == {"annotations/all_train.json"}


def test_cuts_anywhere_change_nothing(server: FileServer, tmp_path: Path) -> None:
    download(config(server, tmp_path / "whole"))
    server.cuts = [10, 100, 30, 1000, 1]
    folder = download(config(server, tmp_path / "cut"))
    for path in (tmp_path / "whole" / "data").rglob("*.*4"):
        assert (folder / path.relative_to(tmp_path / "whole" / "data")).read_bytes() == path.read_bytes()


def test_an_interrupted_download_goes_on(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [10**6, 10**6, 10**6, 100, 0, 0]  # three small files arrive, then the videos break off for good
    with pytest.raises(UserError, match="goes on where it was"):
        download(config(server, tmp_path))
    server.log.clear()
    download(config(server, tmp_path))
    assert [(method, path, asked) for method, path, asked in server.log if method == "GET"] == [
        ("GET", "zip_data/sample_videos.zip", "bytes=100-")
    ]


def test_archives_can_be_kept(server: FileServer, tmp_path: Path) -> None:
    folder = download(config(server, tmp_path, keep_archives=True))
    assert sorted(path.name for path in (folder / "archives").iterdir()) == [
        "sample_annotations.zip",
        "sample_videos.zip",
    ]


def test_a_file_that_was_deleted_is_fetched_again(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = download(config(server, tmp_path))
    (folder / "videos" / "video_1.mp4").unlink()
    download(config(server, tmp_path))
    assert "1 files of sample_videos.zip are gone or changed, such as videos/video_1.mp4" in caplog.text
    assert (folder / "videos" / "video_1.mp4").is_file()


def test_a_damaged_archive_is_removed_and_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    whole = server.files["zip_data/sample_videos.zip"]
    damaged = bytearray(whole)
    damaged[200] ^= 1
    server.files["zip_data/sample_videos.zip"] = bytes(damaged)
    with pytest.raises(UserError, match=r"sample_videos\.zip was damaged .* run the same command again"):
        download(config(server, tmp_path))
    server.files["zip_data/sample_videos.zip"] = whole
    assert len(list((download(config(server, tmp_path)) / "videos").iterdir())) == 3


def test_a_page_in_place_of_json_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.files["misc/cut_frame_mapping_train.json"] = b"<html>"
    with pytest.raises(UserError, match=r"cut_frame_mapping_train\.json is not valid JSON .*removed"):
        download(config(server, tmp_path))
    assert not (tmp_path / "data" / "cut_frame_mapping_train.json").exists()


def test_too_small_a_disk_is_told_before_anything_is_fetched(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=collect.download.unpack.SPARE_BYTES + 3000)
    monkeypatch.setattr("collect.download.unpack.shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"sample_annotations\.zip \+ .*sample_videos\.zip needs"):
        download(config(server, tmp_path))
    assert {method for method, _, _ in server.log} == {"HEAD"}


def test_a_missing_file_is_told_before_anything_is_fetched(server: FileServer, tmp_path: Path) -> None:
    del server.files["zip_data/sample_videos.zip"]
    with pytest.raises(UserError, match=r"sample_videos\.zip cannot be fetched: the server answers 404"):
        download(config(server, tmp_path))
    assert {method for method, _, _ in server.log} == {"HEAD"}


def test_two_processes_do_not_share_a_folder(server: FileServer, tmp_path: Path) -> None:
    with writing(tmp_path / "data"), pytest.raises(UserError, match="is being written by another process"):
        download(config(server, tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"format": "other", "version": 1, "files": {}}',
        '{"format": "video-sae download", "version": 1, "files": {"a": {}}}',
        '{"format": "video-sae download", "version": 1, "files": {"a": {"files": {"b": "c"}}}}',
    ],
)
def test_an_unreadable_record_is_refused(server: FileServer, tmp_path: Path, text: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / RECORD_NAME).write_text(text)
    with pytest.raises(UserError, match=r"download\.json is (no record|not valid JSON).*delete it"):
        download(config(server, tmp_path))


def test_what_is_published() -> None:
    def paths(*splits: Any, parts: Any = ("videos", "annotations", "mc_question", "cut_frames")) -> list[str]:
        return [file.path for file in published_files(splits, parts)]

    assert paths("test") == [
        "zip_data/mc_question_test_annotations.zip",
        "zip_data/test_annotations.zip",
        "zip_data/test_videos.zip",
    ]
    assert paths("sample", "train", parts=("cut_frames",)) == [
        "misc/cut_frame_mapping_train.json",
        "misc/cut_frame_mapping_valid.json",
    ]
    assert paths("test", parts=("cut_frames",)) == []


def test_a_part_that_is_not_published_is_refused(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing that is published"):
        download(config(server, tmp_path, split=("test",), parts=("cut_frames",)))


def test_default_folder() -> None:
    assert DownloadConfig().folder == Path("data/sample")
    assert DownloadConfig(split=("train", "valid")).folder == Path("data/train-valid")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": ()}, "--split must name"),
        ({"parts": ("videos", "videos")}, "--parts must name"),
        ({"base_url": "file:///etc"}, "--base-url must begin with https"),
        ({"timeout_s": 0.0}, "--timeout-s must be above 0"),
        ({"attempts": 0}, "--attempts at least 1"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DownloadConfig(**changes)
