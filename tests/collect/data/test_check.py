"""`check` lists everything that is wrong in a folder at once, worst first."""

import json
import os
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

import video_sae
from collect.config import CheckConfig
from collect.data.check import check
from collect.data.perception_test import load_dataset
from collect.errors import UserError
from tests.collect.data.test_annotation_files import TRACK, question, save
from tests.collect.video_files import numbered, rotate_header, write_video


def lines(folder: Path) -> list[str]:
    return str(check(CheckConfig(data=folder))).splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("video_1", "video_2"):
        write_video(tmp_path / "videos" / f"{name}.mp4", numbered(30))
    save(tmp_path, "annotations/a.json", {name: {"object_tracking": [TRACK]} for name in ("video_1", "video_2")})
    return tmp_path


def test_a_sound_folder(folder: Path) -> None:
    report = check(CheckConfig(data=folder))
    assert (report.findings, report.exit_status) == ((), 0)
    assert str(report).splitlines() == [
        "2 video files, 2 videos read, 2 tracks, 2 boxes, 0 actions, 0 sounds, 0 questions, 0 with a counting tag",
        "0 refusals, 0 warnings, 0 notes",
    ]


def test_every_kind_of_finding_at_once_worst_first(folder: Path) -> None:
    write_video(folder / "videos" / "spare.mp4", numbered(30))
    (folder / "videos" / "broken.mp4").write_bytes(b"no video")
    (folder / "videos" / "notes.docx").write_text("")
    (folder / "videos" / ".hidden").write_text("")
    (folder / "ids.csv").write_text("video_1,video_77\n")
    (folder / "results.json").write_text("{}")
    (folder / "annotations" / "damaged.json").write_text("{")
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), folder / "table.parquet")
    save(folder, "cut_frame_mapping_valid.json", {"video_1": 90, "video_88": 4})
    turned = {"id": 8, "label": "box", "bounding_boxes": [[0.9, 0.9, 0.7, 0.6]], "frame_ids": [0]}
    counting = question(0, options=["few", "2", "3"], tag=["object counting"])
    save(
        folder,
        "annotations/b.json",
        {
            "video_2": {
                "metadata": {"resolution": [64, 48], "frame_rate": 15.0},
                "object_tracking": [turned],
                "mc_question": [
                    counting,
                    question(1, options=["1", "1", "2"]),
                    question(2, options=["1", "2"], answer_id=0),
                ],
            },
            "video_3": {"action_localisation": [{"label": None, "timestamps": [0, 1]}]},
        },
    )
    report = check(CheckConfig(data=folder))
    assert report.exit_status == 2
    found = [(finding.level, str(finding)) for finding in report.findings]
    assert [level for level, _ in found] == sorted(
        (level for level, _ in found), key=["refused", "warning", "note"].index
    )
    expected = (
        ("refused", "broken.mp4 cannot be decoded as a video"),
        ("refused", "damaged.json is not valid JSON"),
        ("refused", "table.parquet has a row without `video_name`"),
        ("refused", "b.json: `object_tracking`: the units of its boxes cannot be told"),
        ("refused", "b.json: video 'video_3', `action_localisation`[0] has the field `label` = None"),
        ("warning", "spare.mp4: this video has no annotation: it is left out"),
        ("warning", "broken.mp4: this video has no annotation: it is left out"),
        ("warning", "notes.docx: this is no file that is read: it is passed over"),
        ("warning", "ids.csv: it names videos that are not there (1 of 2, such as 'video_77')"),
        ("warning", "cut_frame_mapping_valid.json: it names videos that are not there (1 of 2, such as 'video_88')"),
        ("warning", "video 'video_1': its cut frame comes after its end (90 of 30 frames)"),
        ("warning", "annotated videos have no file (1 of 3, such as 'video_3')"),
        ("warning", "video 'video_2': its file has other proportions than its metadata"),
        ("warning", "video 'video_2': its file has another frame rate than its metadata (15, where the file has 30)"),
        ("warning", "video 'video_2', question 0: it has a counting tag, but an option that is not one number"),
        ("warning", "video 'video_2', question 1: two of its options are alike"),
        ("warning", "video 'video_2', question 2: it does not have 3 options"),
        ("note", "video files without annotations (2 of 4: "),
        ("note", "results.json: this JSON file holds no annotations: it is passed over"),
    )
    for level, text in expected:
        assert [shown for at, shown in found if at == level and text in shown], text
    assert [shown for _, shown in found if not any(text in shown for _, text in expected)] == []
    assert not any(".hidden" in text for _, text in found)


def test_names_do_not_match(folder: Path) -> None:
    save(folder, "annotations/a.json", {"clip_1": {"object_tracking": [TRACK]}})
    (first, *others) = lines(folder)
    assert "no annotated video has a file (1 of 1, such as 'clip_1')" in first
    assert any("its frame ids cannot be turned into times: it is left out" in line for line in others)


def test_answers_that_are_counted_from_1(folder: Path) -> None:
    asked = [question(i, answer_id=1 + i % 2) for i in range(30)]
    save(folder, "annotations/q.json", {"video_1": asked})
    assert any("no question has the answer_id 0" in line for line in lines(folder))


def test_the_command_prints_the_list_and_its_exit_status_says_whether_something_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert video_sae.main(["check", "--data", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("0 refusals, 0 warnings, 0 notes\n")
    (folder / "videos" / "x.txt\x1b[0m\n.doc").write_text("")
    assert video_sae.main(["check", "--data", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "1 warning," in out
    assert out.replace("\n", "").isprintable()
    (folder / "annotations" / "a.json").write_text(json.dumps({"video_1": 3}))
    assert video_sae.main(["check", "--data", str(folder)]) == 2
    assert "refused " in capsys.readouterr().out


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*gone"):
        check(CheckConfig(data=tmp_path / "gone"))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    report = check(CheckConfig(data=tmp_path))
    assert report.exit_status == 2
    assert "holds no videos" in str(report)


def test_folders_in_the_folder_and_what_is_passed_over_there(tmp_path: Path) -> None:
    for name in ("a/v.mp4", "a/w.gif", "b/w.mp4", "u.MKV"):
        write_video((tmp_path / "videos" / name).with_suffix(".mp4"), numbered(30)).rename(tmp_path / "videos" / name)
    os.close(os.open(os.fsencode(tmp_path / "videos") + b"/b/caf\xe9.mp4", os.O_CREAT | os.O_WRONLY))
    for name in ("a/song.mp3", "b/list.txt", "b/more.json"):
        (tmp_path / "videos" / name).write_text("{}")
    save(tmp_path, "annotations/a.json", {name: {"object_tracking": [TRACK]} for name in ("v", "b/w", "u", "w")})
    found = lines(tmp_path)
    for text in (
        "refused .*may each be the annotated video 'w': remove or rename all but one",
        "warning .*a/w.gif: this video has no annotation",
        "warning .*caf\\\\udce9.mp4: its name is not UTF-8.*rename it",
        "warning .*song.mp3: this is no file that is read",
        "warning .*b/list.txt: this is no file that is read",
        "warning .*b/more.json: this is no file that is read",
        "warning .*annotated videos have no file .1 of 4, such as 'w'",
    ):
        assert [line for line in found if re.match(text, line)], text
    assert "4 video files, 4 videos read, 3 tracks" in found[-2]


def test_a_file_is_that_of_one_video_and_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a" / "v.mp4", numbered(30))
    (tmp_path / "videos" / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    save(tmp_path, "annotations/a.json", {name: {"object_tracking": [TRACK]} for name in ("v", "a/v")})
    found = lines(tmp_path)
    for text in (
        r"warning .*a video file could be that of two annotated videos \('v' besides 'a/v', .*a/v.mp4\): the first is",
        r"warning .*gone.mp4: there is no file at this name \(a link to nothing, or a pipe\): it is passed over",
        r"warning .*annotated videos have no file .1 of 2, such as 'v'",
    ):
        assert [line for line in found if re.match(text, line)], text
    assert {video.video_id: video.path is None for video in load_dataset(tmp_path).videos} == {"v": True, "a/v": False}


def test_two_files_of_one_id_are_all_that_is_said(tmp_path: Path) -> None:
    for name in ("v.mp4", "v.webm"):
        (tmp_path / name).write_bytes(b"")
    report = check(CheckConfig(data=tmp_path))
    assert ["have one name" in str(finding) for finding in report.findings] == [True]


def test_videos_without_annotations_that_cannot_be_read_are_refused_with_the_reason(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", numbered(3))
    (tmp_path / "empty.ts").write_bytes(b"")
    report = check(CheckConfig(data=tmp_path))
    assert report.exit_status == 2
    (finding,) = report.findings
    assert "empty.ts cannot be decoded as a video (it is empty" in str(finding)


@pytest.mark.parametrize(("resolution", "n_found"), [([64, 48], 0), ([48, 64], 1)])
def test_the_size_of_a_turned_video_is_the_shown_one(folder: Path, resolution: list[int], n_found: int) -> None:
    rotate_header(folder / "videos" / "video_1.mp4", (0, 1, -1, 0))
    entry = {"metadata": {"resolution": resolution}, "object_tracking": [TRACK]}
    save(folder, "annotations/a.json", {"video_1": entry, "video_2": {"object_tracking": [TRACK]}})
    found = check(CheckConfig(data=folder)).findings
    assert ["other proportions" in str(finding) for finding in found] == [True] * n_found
