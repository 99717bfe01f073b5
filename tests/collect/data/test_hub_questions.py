"""Questions in the hub's own table, read through `datasets` from files written here."""

import copy
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from collect.data.annotation import ANSWER_WITHHELD
from collect.data.hub_questions import is_hub_name, parquet_files, read_hub
from collect.data.perception_test import load_dataset
from collect.errors import UserError
from tests.collect.data.test_perception_test import VIDEO
from tests.collect.video_files import numbered, write_video

ROW = {
    "video_name": "video_7",
    "question": "How many boxes?",
    "question_id": "31",
    "options": ["2", "3", "4 or more"],
    "answer_id": "1",
    "area": "memory",
    "reasoning": "descriptive",
    "tag": ["object counting"],
}
OTHER = ROW | {"video_name": "video_8", "question_id": "4", "answer_id": "0"}


def save(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_video(tmp_path / "videos" / "video_7.mp4", numbered(3))
    save(tmp_path / "validation-00000-of-00001.parquet", ROW, OTHER, ROW | {"question_id": "5"})
    return tmp_path


def test_questions_of_a_table_are_those_of_the_json(folder: Path) -> None:
    dataset = load_dataset(folder)
    save_json = folder / "json"
    (save_json / "annotations").mkdir(parents=True)
    (save_json / "annotations" / "all_valid.json").write_text(json.dumps({"video_7": VIDEO}))
    assert dataset.video("video_7").questions[0] == load_dataset(save_json).video("video_7").questions[0]
    assert [question.id for question in dataset.video("video_7").questions] == [31, 5]
    assert [question.answer_id for question in dataset.video("video_8").questions] == [0]


def test_what_the_table_does_not_say_comes_from_the_file(folder: Path) -> None:
    video = load_dataset(folder).video("video_7")
    assert (video.split, video.n_frames, video.frame_rate, video.height, video.width) == ("valid", 3, 30.0, 48, 64)
    assert load_dataset(folder).video("video_8").path is None
    assert [video.video_id for video in load_dataset(folder, "valid").videos_with_files] == ["video_7"]


def test_cut_frames_apply_to_questions_of_a_table(folder: Path) -> None:
    (folder / "cut_frame_mapping_valid.json").write_text('{"video_7": 2}')
    assert load_dataset(folder).video("video_7").cut_frame == 2


def test_the_table_alone_may_be_given(folder: Path) -> None:
    dataset = load_dataset(folder / "validation-00000-of-00001.parquet")
    assert [video.video_id for video in dataset.videos_with_files] == ["video_7"]


def test_questions_of_the_json_go_first(folder: Path) -> None:
    described = copy.deepcopy(VIDEO)
    described["mc_question"][0]["id"] = 2
    (folder / "all_valid.json").write_text(json.dumps({"video_7": described}))
    dataset = load_dataset(folder)
    assert [question.id for question in dataset.video("video_7").questions] == [2]
    assert [question.id for question in dataset.video("video_8").questions] == [4]


def test_tables_in_a_clone_of_the_data_set_are_found(tmp_path: Path) -> None:
    path = save(tmp_path / "mc_question_val" / "validation-00000-of-00001.parquet", ROW)
    assert parquet_files(tmp_path) == [path]


@pytest.mark.parametrize("answer", [None, "", "absent"])
def test_withheld_answers(tmp_path: Path, answer: str | None) -> None:
    row = ROW | {"answer_id": answer}
    if answer == "absent":
        del row["answer_id"]
    save(tmp_path / "test-00000-of-00001.parquet", row)
    video = load_dataset(tmp_path).video("video_7")
    assert (video.split, video.questions[0].answer_id) == ("test", ANSWER_WITHHELD)


def test_one_tag_as_text_and_a_name_with_its_suffix(tmp_path: Path) -> None:
    save(tmp_path / "a.parquet", ROW | {"tag": "motion", "video_name": "video_7.mp4"})
    video = load_dataset(tmp_path).video("video_7")
    assert (video.questions[0].tag, video.split) == (("motion",), "unknown")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer_id": "3"}, "`answer_id` = '3', which should be one of the 3 options"),
        ({"question_id": "x"}, "`id` = 'x', which should be a whole number"),
        ({"options": "A"}, "`options` = 'A', which should be a list of texts"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "a.parquet", ROW | changes)
    with pytest.raises(UserError, match=message) as info:
        load_dataset(tmp_path)
    assert str(path) in str(info.value)
    assert "'video_7'" in str(info.value)


def test_a_table_of_something_else(tmp_path: Path) -> None:
    save(tmp_path / "a.parquet", {"name": "x"})
    with pytest.raises(UserError, match=r"a\.parquet has a row without `video_name`"):
        load_dataset(tmp_path)


def test_a_file_that_is_no_parquet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(UserError, match=r"a\.parquet cannot be read as parquet"):
        load_dataset(tmp_path)
    assert capfd.readouterr() == ("", "")  # the error says it all
    assert not caplog.records


def test_a_table_whose_text_is_none(folder: Path) -> None:
    path = next(folder.glob("**/*.parquet"))
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)
    content = path.read_bytes()
    word = table["question"][0].as_py().encode()
    assert word in content
    path.write_bytes(content.replace(word, b"\xff" + word[1:]))
    with pytest.raises(UserError, match=rf"{path.name} cannot be read as parquet"):
        load_dataset(folder)


def test_a_data_set_in_the_layout_of_the_hub(tmp_path: Path) -> None:
    """`datasets` reads a local folder as it reads the hub: by the configurations that its card names."""
    save(tmp_path / "mc_question_val" / "validation-00000-of-00001.parquet", ROW, OTHER)
    card = "configs:\n- config_name: mc_question_val\n  data_files:\n  - split: validation\n    path: mc_question_val/*"
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n")
    found = read_hub(str(tmp_path))
    assert sorted(found) == ["video_7", "video_8"]
    assert found["video_7"][0].split == "valid"


def test_a_data_set_that_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> list[str]:
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub.")

    monkeypatch.setattr(datasets, "get_dataset_config_names", refuse)
    with pytest.raises(UserError, match=r"nobody/nothing is neither a folder here nor .* and the network"):
        load_dataset(Path("nobody/nothing"))


def test_a_data_set_without_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda _: ["default"])
    with pytest.raises(UserError, match="no configuration whose name begins with mc_question"):
        read_hub("nobody/nothing")


def test_names_of_the_hub(tmp_path: Path) -> None:
    assert is_hub_name(Path("lmms-lab/PerceptionTest_Val"))
    assert not is_hub_name(Path("/data/x"))
    assert not is_hub_name(Path("../x"))
    assert not is_hub_name(Path("a/b/c"))
    assert not is_hub_name(tmp_path)
