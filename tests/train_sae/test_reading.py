"""Reading what a training wrote."""

import json
import re
from pathlib import Path

import pytest

from collect.artefact.config_json import write_config
from collect.artefact.folder import file_hash
from collect.artefact.seal import seal_object
from collect.errors import UserError
from train_sae.reading import METRICS_NAME, begun_saes, check_same_sae, find_sae, finished_saes, read_metrics


def make_saes(run: Path, *names: str) -> None:
    for name in names:
        (run / "sae" / name).mkdir(parents=True)
        (run / "sae" / name / "cfg.json").write_text("{}")


def test_saes_are_named_in_order_from_when_their_training_begins(tmp_path: Path) -> None:
    assert begun_saes(tmp_path) == finished_saes(tmp_path) == []
    make_saes(tmp_path, "b", "a")
    for name in ("c", "b"):
        (tmp_path / "sae" / name).mkdir(exist_ok=True)
        (tmp_path / "sae" / name / "config.json").write_text("{}")
    assert finished_saes(tmp_path) == ["a", "b"]
    assert begun_saes(tmp_path) == ["b", "c"]


def line_of(step: int, n_steps: int) -> dict[str, object]:
    return seal_object({"step": step, "n_steps": n_steps, "fvu": 1 / step, "tokens": 128 * step})


@pytest.fixture
def three_lines(tmp_path: Path) -> Path:
    """The folder of a record with lines of the steps 10, 20 and 30."""
    lines = [line_of(step, n_steps=10) for step in (10, 20, 30)]
    (tmp_path / METRICS_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_lines_come_back_as_numbers(three_lines: Path) -> None:
    assert read_metrics(three_lines, 30) == [
        {"step": n, "n_steps": 10, "fvu": 1 / n, "tokens": 128 * n} for n in (10, 20, 30)
    ]


def test_a_training_without_a_record_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_any_flipped_bit_of_a_line_is_found_or_changes_nothing(three_lines: Path) -> None:
    path = three_lines / METRICS_NAME
    whole = path.read_bytes()
    expected = read_metrics(three_lines)
    found = 0
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            assert [{n: line[n] for n in ("step", "fvu", "tokens")} for line in read_metrics(three_lines)] == expected
        except UserError as error:
            assert METRICS_NAME in str(error)  # noqa: PT017
            found += 1
    assert found > len(whole) / 5


@pytest.mark.parametrize(
    "line",
    ["", "[" * 10_000, "[1]", '{"step": "10"}', '{"fvu": 1}', '{"step": ' + "9" * 5000 + "}", '{"step": 1, "fvu": {}}'],
)
def test_a_line_that_is_none_is_named_by_its_number(three_lines: Path, line: str) -> None:
    path = three_lines / METRICS_NAME
    first, _, third = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{third}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2,.*: delete that line"):
        read_metrics(three_lines)


@pytest.mark.parametrize("order", [(0, 1, 1, 2), (0, 2, 1), (1, 0, 2)])
def test_doubled_and_moved_lines_are_refused(three_lines: Path, order: tuple[int, ...]) -> None:
    path = three_lines / METRICS_NAME
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{lines[number]}\n" for number in order))
    with pytest.raises(
        UserError, match=r"metrics\.jsonl, line [23], is of step \d0 and the one before of step \d0: delete"
    ):
        read_metrics(three_lines)


@pytest.mark.parametrize(
    ("kept", "is_said"), [((0, 1, 2, 3), False), ((0, 2, 3), True), ((1, 2, 3), True), ((0, 1, 2), True)]
)
def test_lines_that_are_missing_are_said(
    three_lines: Path, kept: tuple[int, ...], is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = three_lines / METRICS_NAME
    lines = [*path.read_text().splitlines(), json.dumps(line_of(34, n_steps=4))]  # the last window is shorter
    path.write_text("".join(f"{lines[number]}\n" for number in kept))
    assert len(read_metrics(three_lines, 34)) == len(kept)
    assert ("metrics.jsonl lacks lines" in caplog.text) == is_said


def test_a_line_of_an_earlier_version_has_no_checksum(three_lines: Path) -> None:
    (three_lines / METRICS_NAME).write_text(json.dumps({"step": 5, "fvu": float("nan")}) + "\n")
    (line,) = read_metrics(three_lines)
    assert line["step"] == 5


def test_a_folder_elsewhere_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_saes(tmp_path / "run", "a")
    make_saes(tmp_path / "other", "b")
    elsewhere = tmp_path / "other" / "sae" / "b"
    assert find_sae(tmp_path / "run", str(elsewhere)) == elsewhere
    assert find_sae(tmp_path / "empty", str(elsewhere)) == elsewhere
    monkeypatch.chdir(tmp_path / "other")
    assert find_sae(tmp_path / "run", "sae/b").samefile(elsewhere)
    inside = tmp_path / "run" / "sae" / "a"
    assert find_sae(tmp_path / "run", str(inside)) == inside


def test_the_only_sae_needs_no_name(tmp_path: Path) -> None:
    make_saes(tmp_path, "a")
    (tmp_path / "sae" / "unfinished").mkdir()
    assert find_sae(tmp_path) == tmp_path / "sae" / "a"


def test_one_of_several_is_found_by_name(tmp_path: Path) -> None:
    make_saes(tmp_path, "a", "b")
    assert find_sae(tmp_path, "b") == tmp_path / "sae" / "b"


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        ((), None, "holds no SAE: run `video-sae train"),
        (("a", "b"), None, "holds several SAEs (a, b): name one with --sae"),
        (("a",), "c", "holds no SAE named 'c': it has a"),
        (("a",), "../a", "holds no SAE named '../a'"),
    ],
)
def test_no_unique_sae_is_a_user_error(
    tmp_path: Path, names: tuple[str, ...], wanted: str | None, message: str
) -> None:
    make_saes(tmp_path, *names)
    with pytest.raises(UserError, match=re.escape(message)):
        find_sae(tmp_path, wanted)


@pytest.mark.parametrize("place", ["run/sae/one", "elsewhere/lens"])
def test_a_stage_of_an_earlier_sae_of_the_same_name_is_named(tmp_path: Path, place: str) -> None:
    run, sae = tmp_path / "run", tmp_path / place
    sae.mkdir(parents=True)
    (sae / "sae_weights.safetensors").write_bytes(b"first")
    folders = {stage: run / stage / "one" for stage in ("steer", "features")}
    hashes = {"sae": file_hash(sae / "sae_weights.safetensors")}
    write_config(folders["features"], "features", {}, hashes, {"run": run, "sae": sae})
    check_same_sae(run, folders)  # steer has not begun
    (sae / "sae_weights.safetensors").write_bytes(b"second")
    message = f"{folders['features']} was made with another SAE than the one that is in {sae} now: delete the former"
    with pytest.raises(UserError, match=re.escape(message)):
        check_same_sae(run, folders)
    (sae / "sae_weights.safetensors").unlink()
    check_same_sae(run, folders)
