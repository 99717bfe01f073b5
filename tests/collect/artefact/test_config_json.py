"""config.json, and the decision to resume."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from collect.artefact.config_json import check_resume, read_config, write_config
from collect.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments of an imaginary stage."""

    data: Path = Path("videos")
    sites: tuple[str, ...] = ("resid/1", "resid/2")
    frames: int | None = None
    rate: float = 1.0
    device: str = "cpu"


def test_config_round_trip_turns_paths_and_tuples_into_json(tmp_path: Path) -> None:
    write_config(tmp_path / "deep" / "folder", "collect", Arguments(), {"model": "abc"})
    config = read_config(tmp_path / "deep" / "folder", "collect")
    assert config["arguments"] == {
        "data": "videos",
        "sites": ["resid/1", "resid/2"],
        "frames": None,
        "rate": 1.0,
        "device": "cpu",
    }
    assert config["inputs"] == {"model": "abc"}


def test_config_names_versions_and_commit(tmp_path: Path) -> None:
    write_config(tmp_path, "collect", Arguments(), {})
    config = read_config(tmp_path, "collect")
    assert config["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "transformers", "zarr", "numpy"} <= set(config["versions"])
    assert config["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", config["commit"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist: run `video-sae collect` first"),
        ("{", "is not valid JSON"),
        ("[]", "is not a JSON object"),
        ('{"stage": "collect"}', "lacks `arguments` or `inputs`"),
        (
            '{"stage": "collect", "arguments": {}, "inputs": {}, "paths": [1]}',
            "has `versions`, `paths` or a `commit` that",
        ),
        ('{"stage": "train", "arguments": {}, "inputs": {}}', "belongs to the stage 'train' where 'collect' is needed"),
    ],
)
def test_unusable_config_is_a_user_error_that_names_the_file(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_config(tmp_path, "collect")
    assert str(tmp_path / "config.json") in str(caught.value)


def test_resume_is_false_before_and_true_after_the_config_is_written(tmp_path: Path) -> None:
    assert check_resume(tmp_path, "collect", Arguments(), {"model": "abc"}) is False
    write_config(tmp_path, "collect", Arguments(), {"model": "abc"})
    assert check_resume(tmp_path, "collect", Arguments(), {"model": "abc"}) is True


def test_resume_says_what_changed_in_one_sentence(tmp_path: Path) -> None:
    write_config(tmp_path, "collect", Arguments(), {"model": "abc"})
    with pytest.raises(UserError) as caught:
        check_resume(tmp_path, "collect", Arguments(frames=8, data=Path("other")), {"model": "def"})
    assert str(caught.value) == (
        f'{tmp_path} was begun with other settings, data = "videos" (now "other"), frames = null (now 8) and '
        'input model = "abc" (now "def"): give the earlier ones to go on there, '
        "or delete the folder."
    )


@pytest.mark.parametrize(
    ("flag", "remedy"), [("out", "choose another --out, or delete"), ("name", "choose another --name, or delete")]
)
def test_the_remedy_names_only_flags_that_the_stage_has(tmp_path: Path, flag: str, remedy: str) -> None:
    write_config(tmp_path, "train", {flag: "a", "seed": 0}, {})
    with pytest.raises(UserError, match=f"go on there, {remedy} the folder"):
        check_resume(tmp_path, "train", {flag: "a", "seed": 1}, {})


def test_what_an_earlier_version_recorded_is_the_same_argument(tmp_path: Path) -> None:
    write_config(tmp_path, "features", {"sae": None}, {})
    assert check_resume(tmp_path, "features", {"sae": "one"}, {}, formerly={"sae": None}) is True
    with pytest.raises(UserError, match=r'sae = null \(now "one"\)'):
        check_resume(tmp_path, "features", {"sae": "one"}, {})
    write_config(tmp_path, "features", {"sae": "other"}, {})
    with pytest.raises(UserError, match=r'sae = "other" \(now "one"\)'):
        check_resume(tmp_path, "features", {"sae": "one"}, {}, formerly={"sae": None})


def test_resume_says_where_a_changed_input_lies(tmp_path: Path) -> None:
    write_config(tmp_path, "collect", {"long": "x" * 10**6}, {"model": "abc"})
    with pytest.raises(UserError) as caught:
        check_resume(tmp_path, "collect", {"long": "y"}, {"model": "def"}, places={"model": Path("models/a"), "b": "c"})
    assert 'input model (models/a) = "abc" (now "def"): give' in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_resume_says_when_an_argument_came_or_went(tmp_path: Path) -> None:
    write_config(tmp_path, "train", {"old": 1}, {})
    with pytest.raises(UserError, match=re.escape("old = 1 (now absent) and new = absent (now 2)")):
        check_resume(tmp_path, "train", {"new": 2}, {})


def test_resume_overlooks_ignored_arguments_only(tmp_path: Path) -> None:
    write_config(tmp_path, "collect", Arguments(), {})
    assert check_resume(tmp_path, "collect", Arguments(device="cuda"), {}, ignore=("device",)) is True
    with pytest.raises(UserError, match="device"):
        check_resume(tmp_path, "collect", Arguments(device="cuda"), {})


def test_resume_takes_equal_numbers_for_equal(tmp_path: Path) -> None:
    write_config(tmp_path, "collect", Arguments(rate=1.0), {})
    assert check_resume(tmp_path, "collect", Arguments(rate=1), {}) is True


def test_config_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"cannot stand in config\.json"):
        write_config(tmp_path, "collect", {"dtype": object()}, {})
    assert list(tmp_path.iterdir()) == []
