"""`verify` names every bad file, and a repaired store ends as one that was never damaged."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from collect.artefact.config_json import write_config
from collect.config import VerifyConfig
from collect.errors import UserError
from collect.reading import ActivationStore
from collect.store.manifest import write_manifest
from collect.store.verify import find_problems, verify
from tests.collect.store_files import (
    contents,
    edit_log,
    edit_manifest,
    fill,
    make_first_version,
    open_writer,
    write_store,
)
from video_sae import main

LENGTHS = (3, 0, 7, 1, 5, 0, 4, 2)  # 66 tokens: four shards of 16 rows and a rest of 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_store(tmp_path_factory.mktemp("whole") / "run" / "activations", LENGTHS)
    write_config(folder, "collect", {}, {})
    return folder


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run" / "activations"))


def flip(path: Path, at: int = 5) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_a_good_store_passes(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert verify(VerifyConfig(run=store)) == store
    assert verify(VerifyConfig(run=store.parent)) == store
    assert "nothing is wrong" in caplog.text


def test_an_unfinished_store_passes_as_far_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "activations"
    with open_writer(folder) as writer:
        fill(writer, LENGTHS[:4])
    write_config(folder, "collect", {}, {})
    with caplog.at_level("INFO"):
        verify(VerifyConfig(run=folder))
    assert "which is not finished, as it has no manifest.json: run `video-sae collect` again" in caplog.text


@pytest.mark.parametrize("array", ["projector", "resid/2", "coords"])
@pytest.mark.parametrize("shard", [0, 3, 4])
def test_a_flipped_bit_is_found_in_any_array_and_shard(store: Path, array: str, shard: int) -> None:
    path = store / "rank-0.zarr" / array / "c" / str(shard) / "0"
    flip(path)
    (problem,) = find_problems(store)
    assert problem.path == path
    assert problem.reason == "its chunk 0 fails its checksum"


def test_what_stands_after_the_last_commit_of_a_finished_log_is_found(store: Path) -> None:
    with (store / "rank-0.jsonl").open("ab") as file:
        file.write(bytes(4096))  # no newline: while collecting, a crash may leave such a line
    (problem,) = find_problems(store)
    assert problem.path == store / "rank-0.jsonl"
    assert "something stands after its last commit" in problem.reason


def test_a_whole_shard_in_the_place_of_another_is_found(store: Path) -> None:
    first, second = (store / "rank-0.zarr" / "resid" / "2" / "c" / str(shard) / "0" for shard in (1, 3))
    own, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(own)
    reason = "its chunk 0 is whole, but not the one that was committed"
    assert [(problem.path, problem.reason) for problem in find_problems(store)] == [(first, reason), (second, reason)]
    opened = ActivationStore.open(store)
    with pytest.raises(UserError, match=reason):
        opened.read("resid/2", 0, opened.n_tokens)
    assert len(opened.read("projector", 0, opened.n_tokens)) == opened.n_tokens


def test_a_log_that_does_not_note_its_chunks_is_taken_as_it_is(store: Path) -> None:
    """Of a program that did not note them yet; chunks then vouch for themselves only."""
    log = store / "rank-0.jsonl"
    edit_log(log, lambda lines: [line.pop("chunks", None) for line in lines])
    last = json.loads(log.read_text().splitlines()[-1])
    edit_manifest(store, lambda content: content["ranks"][0].update(log_crc32c=last["crc32c"]))
    assert find_problems(store) == []


def test_every_bad_file_is_named_and_the_command_ends_with_2(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = store / "rank-0.zarr" / "resid" / "2" / "c"
    flip(shards / "0" / "0")
    (shards / "1" / "0").unlink()
    data = (shards / "2" / "0").read_bytes()
    (shards / "2" / "0").write_bytes(data[: len(data) // 2])
    flip(shards / "3" / "0", at=-1)
    assert main(["verify", "--run", str(store)]) == 2
    words = capsys.readouterr().err
    assert "4 things are wrong" in words
    for shard, reason in (
        ("0", "its chunk 0 fails its checksum"),
        ("1", "No such file or directory"),
        ("2", "it is too short for its rows"),
        ("3", "its index fails its checksum"),
    ):
        assert f"{shards / shard / '0'}: {reason}" in words
    assert "Traceback" not in words


def test_an_appended_byte_is_found(store: Path) -> None:
    path = store / "rank-0.zarr" / "coords" / "c" / "1" / "0"
    data = path.read_bytes()
    path.write_bytes(b"x" + data)  # index and its checksum, which are at the end, still hold
    (problem,) = find_problems(store)
    assert problem.path == path


def test_coordinates_of_another_video(store: Path, tmp_path: Path) -> None:
    """All checksums hold, but the rows are not those that the log says; it is too old to have noted its chunks."""
    make_first_version(store)
    other = write_store(tmp_path / "other", (3, 0, 1, 7, 5, 0, 4, 2))
    shutil.copy(other / "rank-0.zarr/coords/c/0/0", store / "rank-0.zarr/coords/c/0/0")
    (problem,) = find_problems(store)
    assert problem.reason == "its coordinates are not those of the video 'v2'"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: lines.pop(2), "line 3 does not follow the one before"),
        (lambda lines: lines[3]["videos"].pop(), "which `partial` contradicts"),
        (lambda lines: lines[1]["moments"].update(projector=lines[2]["moments"]["projector"]), "sums over 16 rows"),
        (lambda lines: lines[1]["chunks"].pop("coords"), "`chunks` lacks the field `coords`"),
        (lambda lines: lines[1]["chunks"].update(coords="0" * 31), "000', which should be 4 checksums of eight hexa"),
        (lambda lines: lines[1]["chunks"].update(coords="x" * 32), "should be 4 checksums of eight hexadecimal digits"),
        (lambda lines: lines[1].update(chunks=3), "`chunks` is not a JSON object"),
        (lambda lines: lines[-1].pop("row_stop"), "lacks the field `row_stop`"),
        (lambda lines: lines[0].update(shard_rows="x"), "`shard_rows` = 'x', which should be a whole number from 1 to"),
        (lambda lines: lines[0].update(shard_rows=0), "`shard_rows` = 0, which should be a whole number from 1 to"),
        (lambda lines: lines[0].update(chunk_rows=5), "should be a divisor of `shard_rows` = 16"),
        (lambda lines: lines[1]["videos"][0].update(index=2**40), "`index` = 1099511627776"),
        (lambda lines: lines[1]["videos"][0]["grid"].update(spans_s=[[0, 1], [2]]), "lists of 2 finite numbers"),
        (lambda lines: lines[1]["failures"].append({"index": 0, "video_id": "v0", "reason": ""}), "'v0' again"),
        (lambda lines: lines[1].update(partial=None), "and its videos with 9, which"),
        (lambda lines: lines[-1]["moments"]["projector"].update(norm_bins=[10**9]), "numbers of bins below 8192"),
        (lambda lines: lines[-1]["moments"]["projector"].update(sum="AAAA"), "6 finite numbers, as base64"),
    ],
)
def test_a_wrong_log_is_found(store: Path, change: Callable[[list[dict]], None], reason: str) -> None:
    edit_log(store / "rank-0.jsonl", change)
    problems = find_problems(store)
    assert problems
    assert any(problem.path == store / "rank-0.jsonl" and reason in problem.reason for problem in problems)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n_tokens": 67}, r"it says \(67, 6, 2\) tokens, videos and failures, and the logs \(66, 6, 2\)"),
        ({"n_videos": 5}, r"it says \(66, 5, 2\)"),
        ({"failures": []}, r"it says \(66, 6, 0\)"),
        ({"chunk_rows": 8}, "its sites, sizes or model are not those"),
        ({"version": 99}, "is of another version"),
        ({"n_tokens": -1}, "`n_tokens` = -1, which should be a whole number from 0"),
        ({"ranks": []}, "one rank or more"),
    ],
)
def test_a_wrong_manifest_is_found(store: Path, change: dict[str, object], reason: str) -> None:
    edit_manifest(store, lambda content: content.update(change))
    with pytest.raises(UserError, match=reason):
        verify(VerifyConfig(run=store))


def test_wrong_metadata_of_an_array_are_found(store: Path) -> None:
    path = store / "rank-0.zarr" / "coords" / "zarr.json"
    metadata = json.loads(path.read_text())
    assert metadata["shape"] == [66, 4]
    path.write_text(json.dumps({**metadata, "shape": [65, 4]}))
    (problem,) = find_problems(store)
    assert problem.path == path
    assert "it declares [65, 4] where the log needs [66, 4]" in problem.reason


@pytest.mark.parametrize(
    ("array", "change", "reason"),
    [
        ("coords", {"data_type": "int64"}, "declares another array"),
        ("projector", {"fill_value": 1.0}, "declares another array"),
        ("resid/2", {"attributes": {"logical_dtype": "float16"}}, "declares another array"),
        ("resid/2", {"codecs": []}, "zarr cannot read it|declares another array"),
        ("resid", {"zarr_format": 2}, "does not declare a group"),
        (".", {"node_type": "array"}, "does not declare a group"),
        (".", {"attributes": []}, "does not declare a group"),
        (".", {"other": {}}, "does not declare a group"),
    ],
)
def test_metadata_that_mislead_plain_zarr_are_found(
    store: Path, array: str, change: dict[str, object], reason: str
) -> None:
    path = store / "rank-0.zarr" / array / "zarr.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (problem,) = find_problems(store)
    assert problem.path == path
    assert re.search(reason, problem.reason)


def test_a_store_without_checksums_passes_and_that_is_said(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_first_version(store)
    with caplog.at_level("INFO"):
        verify(VerifyConfig(run=store))
    assert "rank-0.jsonl" in caplog.text
    assert "without checksums" in caplog.text
    assert ActivationStore.open(store).n_tokens == 66


def test_a_changed_id_or_time_is_found_in_logs_with_checksums(store: Path) -> None:
    log = store / "rank-0.jsonl"
    whole = log.read_text()
    for before, after in (('"v3"', '"v9"'), ("0.1,", "0.7,"), ('"frame_rate":30.0', '"frame_rate":90.0')):
        assert before in whole
        log.write_text(whole.replace(before, after))
        assert any("fails its checksum" in problem.reason for problem in find_problems(store))
        with pytest.raises(UserError, match=r"rank-0\.jsonl is damaged \(line \d fails its checksum"):
            ActivationStore.open(store)


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no activation store"):
        verify(VerifyConfig(run=tmp_path / "none"))


@pytest.mark.parametrize("shard", [0, 2, 4])
def test_a_repaired_store_ends_as_one_that_was_never_damaged(store: Path, whole: Path, shard: int) -> None:
    flip(store / "rank-0.zarr" / "resid" / "2" / "c" / str(shard) / "0")
    with pytest.raises(UserError, match="run this with --repair"):
        verify(VerifyConfig(run=store))
    assert (store / "manifest.json").exists()
    with pytest.raises(UserError, match="was cut back"):
        verify(VerifyConfig(run=store, repair=True))
    with pytest.raises(UserError, match="is not finished"):
        ActivationStore.open(store)
    with open_writer(store) as writer:
        assert writer.n_committed == 16 * shard
        fill(writer, LENGTHS)
        writer.finish()
        write_manifest(store, [0])
    assert contents(store) == contents(whole)
    verify(VerifyConfig(run=store))


def test_what_has_no_remedy_is_left_alone(store: Path) -> None:
    edit_log(store / "rank-0.jsonl", lambda lines: lines.pop(2))
    before = contents(store)
    with pytest.raises(UserError, match="Restore what is named from a copy"):
        verify(VerifyConfig(run=store, repair=True))
    assert contents(store) == before


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(b"")], ids=["flipped", "emptied"])
def test_a_manifest_alone_is_written_again(
    store: Path, whole: Path, repair: bool, damage: Callable[[Path], None]
) -> None:
    damage(store / "manifest.json")
    remedy = "manifest.json was deleted" if repair else "or delete it alone, and run `video-sae collect` as before"
    with pytest.raises(UserError) as refusal:
        verify(VerifyConfig(run=store, repair=repair))
    assert remedy in refusal.value.details[-1]
    assert (store / "manifest.json").exists() is not repair
    with pytest.raises(UserError, match="is not finished" if repair else "or delete this file alone and run"):
        ActivationStore.open(store)
    (store / "manifest.json").unlink(missing_ok=True)
    write_manifest(store, [0])  # as collect does
    assert contents(store) == contents(whole)
