"""The command line: what it lists, how fast it starts, what it imports, and how it leaves."""

import dataclasses
import errno
import importlib
import json
import os
import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import video_sae
from collect.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {
    "av",
    "datasets",
    "numpy",
    "pandas",
    "pyarrow",
    "sae_lens",
    "sklearn",
    "torch",
    "transformers",
    "wandb",
    "zarr",
}
HOSTILE = "label \x1b[31m\n\u202e\udce9 is bad"
ESCAPED = "label \\x1b[31m\\n\\u202e\\udce9 is bad"
COMMAND_NAMES = [command.name for command in video_sae.COMMANDS]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeConfig:
    """A stage that fails as it is told to."""

    how: str = "not at all"
    """How to fail."""
    level: int = 0
    """A number that must not be negative."""

    def __post_init__(self) -> None:
        if self.level < 0:
            raise UserError("--level is negative: give 0 or more.")


def fake(config: FakeConfig) -> Path | str | None:
    if config.how == "user":
        raise UserError("videos/a.mp4 is damaged: delete it.")
    if config.how == "interrupt":
        raise KeyboardInterrupt
    if config.how == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "runs/a/store")
    if config.how == "missing":
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "runs/a/store")
    if config.how == "hostile":
        raise UserError(HOSTILE, details=[f"  {HOSTILE}", "  plain"])
    if config.how == "hostile path":
        raise PermissionError(errno.EACCES, "Permission denied", "runs/\x1b[2J\udce9")
    if config.how == "bug":
        raise ZeroDivisionError
    if config.how == "table":
        return "one\ntwo \x1b[31m"
    if config.how == "odd folder":
        return Path("runs/a\nb\udce9")
    return None if config.how == "silent" else Path("runs/fake")


@pytest.fixture
def fake_command(monkeypatch: pytest.MonkeyPatch) -> None:
    command = video_sae.Command(name="fake", config=f"{__name__}:FakeConfig", function=f"{__name__}:fake")
    other = video_sae.Command(name="report", config="report.config:ReportConfig", function="report.page:report")
    monkeypatch.setattr(video_sae, "COMMANDS", (command, other))
    monkeypatch.setattr(video_sae, "_set_up_logging", lambda: None)


def command_line(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "video_sae", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def heavy_imports_of(statement: str) -> set[str]:
    code = f"{statement}\nimport sys, json; print(json.dumps(list(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return HEAVY & set(json.loads(result.stdout))


def test_help_lists_every_command_and_no_other() -> None:
    result = command_line("--help")
    assert result.returncode == 0
    usage = re.search(r"\{([a-z,]+)\}", result.stdout)
    assert usage is not None
    assert usage[1].split(",") == COMMAND_NAMES


def test_help_takes_less_than_a_second() -> None:
    # Processor time, which other processes on the machine do not lengthen.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command_line("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


@pytest.mark.parametrize("command", video_sae.COMMANDS, ids=lambda command: command.name)
def test_command_line_of_each_stage_imports_no_heavy_library(command: video_sae.Command) -> None:
    module, _, _ = command.config.partition(":")
    assert heavy_imports_of(f"import video_sae, {module}") == set()


def test_the_import_check_can_fail() -> None:
    assert heavy_imports_of("import numpy") == {"numpy"}


@pytest.mark.parametrize("command", video_sae.COMMANDS, ids=lambda command: command.name)
def test_each_stage_has_a_documented_config_and_a_function(command: video_sae.Command) -> None:
    config = video_sae._resolve(command.config)
    assert dataclasses.is_dataclass(config)
    assert len(dataclasses.fields(config)) <= 15
    result = command_line(command.name, "--help")
    assert result.returncode == 0
    assert (config.__doc__ or "").splitlines()[0] in result.stdout
    module, _, name = command.function.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_readme_has_a_row_for_every_command() -> None:
    rows = re.findall(r"^\| `video-sae ([a-z]+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == COMMAND_NAMES


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert video_sae.main(["--version"]) == 0
    assert re.fullmatch(r"video-sae (\d+\.\d+\.\d+|\(not installed\))\n", capsys.readouterr().out)


@pytest.mark.usefixtures("fake_command")
def test_success_prints_the_result_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert video_sae.main(["fake"]) == 0
    assert capsys.readouterr() == ("runs/fake\n", "")


@pytest.mark.usefixtures("fake_command")
def test_a_stage_without_a_result_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert video_sae.main(["fake", "--how", "silent"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("fake_command")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--how", "user"], "error: videos/a.mp4 is damaged: delete it.\n"),
        (["--level", "-1"], "error: --level is negative: give 0 or more.\n"),
        (
            ["--how", "disk"],
            "error: runs/a/store: No space left on device: free some disk space, then run the same command again.\n",
        ),
    ],
    ids=["in the stage", "in the config", "full disk"],
)
def test_what_the_user_can_put_right_is_one_sentence_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert video_sae.main(["fake", *arguments]) == 2
    assert capsys.readouterr() == ("", message)


@pytest.mark.usefixtures("fake_command")
@pytest.mark.parametrize(
    ("how", "out", "err"),
    [
        ("hostile", "", f"error: {ESCAPED}\n  {ESCAPED}\n  plain\n"),
        ("hostile path", "", "error: runs/\\x1b[2J\\udce9: Permission denied: choose a place where you may write.\n"),
        ("table", "one\ntwo \\x1b[31m\n", ""),
        ("odd folder", "runs/a\\nb\\udce9\n", ""),
    ],
)
def test_what_is_printed_has_no_control_characters(
    how: str, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    video_sae.main(["fake", "--how", how])
    assert capsys.readouterr() == (out, err)


@pytest.mark.usefixtures("fake_command")
def test_words_that_are_not_understood_are_repeated_without_their_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        video_sae.main(["fake", "--\x1b[31mlevel\udce9", "\x07"])
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\\x1b[31mlevel\\udce9" in text


@pytest.mark.parametrize("option", ["--run", "--site"])
def test_an_argument_that_is_no_text_ends_in_one_sentence(option: str, tmp_path: Path) -> None:
    values = {"--run": bytes(tmp_path), "--site": b"resid/0"} | {option: b"caf\xe9\x1b[31m"}
    words = [word for pair in values.items() for word in pair]
    result = subprocess.run(
        [sys.executable, "-m", "video_sae", "train", *words],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.startswith(b"error: ")
    assert result.stderr.count(b"\n") == 1
    assert b"\x1b" not in result.stderr
    assert b"caf\\udce9\\x1b[31m" in result.stderr


def test_a_library_that_is_too_old_is_named_before_anything_else(tmp_path: Path) -> None:
    requires = {"video_sae-1": "Requires-Dist: transformers>=5.23\n", "transformers-5.17.0": ""}
    for folder, line in requires.items():
        info = tmp_path / f"{folder}.dist-info"
        info.mkdir()
        name, version = folder.replace("_", "-").rsplit("-", 1)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{line}")
    result = subprocess.run(
        [sys.executable, "-m", "video_sae", "train", "--run", "runs/none", "--site", "resid/0"],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # where Python looks first, also before what an editable installation leaves in this folder
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))},
        check=False,
    )
    assert (result.returncode, result.stderr) == (
        2,
        "error: transformers 5.17.0 is older than 5.23, which video-sae needs: pip install -U 'transformers>=5.23'.\n",
    )


@pytest.mark.usefixtures("fake_command")
@pytest.mark.parametrize(("how", "exception"), [("bug", ZeroDivisionError), ("missing", FileNotFoundError)])
def test_a_defect_of_the_program_keeps_its_traceback(how: str, exception: type[Exception]) -> None:
    with pytest.raises(exception):
        video_sae.main(["fake", "--how", how])


@pytest.mark.usefixtures("fake_command")
def test_interruption_says_how_to_go_on_and_gives_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert video_sae.main(["fake", "--how", "interrupt"]) == 130
    assert "run the same command again" in capsys.readouterr().err


@pytest.mark.usefixtures("fake_command")
@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["fake", "--nonsense"], ["fake", "--level", "many"]])
def test_wrong_words_leave_with_status_2_and_an_explanation(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leave:
        video_sae.main(arguments)
    assert leave.value.code == 2
    assert "--help" in capsys.readouterr().err


def test_a_missing_run_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    result = command_line("train", "--run", str(tmp_path / "none"), "--site", "resid/0")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert str(tmp_path / "none") in result.stderr
    assert "Traceback" not in result.stderr


def test_messages_are_plain_below_and_marked_from_warning_on() -> None:
    code = (
        "import logging, video_sae; video_sae._set_up_logging();"
        "logging.getLogger('collect.run').info('7 videos');"
        "logging.getLogger('collect.run').warning('one is damaged');"
        "logging.getLogger('somebody.else').info('not shown')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (result.stdout, result.stderr) == ("", "7 videos\nwarning: one is damaged\n")


def test_what_a_message_is_filled_in_with_cannot_break_its_line() -> None:
    code = (
        "import logging, pathlib, video_sae; from collect.printable import Lines; video_sae._set_up_logging();"
        "log = logging.getLogger('collect.run').info;"
        "log('%s: %d of %s', 'a\\nerror: \\x1b[31mb', 3, pathlib.Path('caf\\udce9'));"
        "log('%s\\npicked %s', Lines('one\\ntwo\\x07'), 'c\\u202e')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stderr == "a\\nerror: \\x1b[31mb: 3 of caf\\udce9\none\ntwo\\x07\npicked c\\u202e\n"


def test_every_package_is_installed() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    tops = [name.removesuffix("*") for name in wanted]
    assert tops == ["collect", "ask", "train_sae", "features", "steer", "report", "browse", "demo"]
    folders = {file.parent for top in tops for file in (ROOT / top).rglob("*.py")}
    assert {folder for folder in folders if not (folder / "__init__.py").exists()} == set()
