"""The front door: the `video-sae` command, one subcommand per stage.

Parses the arguments into the config of one stage, sets up logging, runs the stage, and turns errors into one sentence
and an exit status: 0 done, 2 for something that the user can fix, 130 for an interruption, 143 for one by SIGTERM. It
holds no logic of any stage; the options are the fields of the classes in each package's `config` module.

The stage modules, and with them torch and transformers, are imported only when a stage runs, so that `--help` is fast.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import errno
import importlib
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, Any, Union, cast

from collect.errors import UserError
from collect.printable import Lines, printable, printable_lines
from collect.process.interruption import Interrupted, interruptible
from collect.process.library_versions import require_libraries
from collect.process.provenance import installed_versions
from collect.process.ranks import end_with_launcher


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A subcommand: where its arguments are described and which function runs it, as `module:name`."""

    name: str
    config: str
    function: str


COMMANDS = (
    Command(name="demo", config="demo.config:DemoConfig", function="demo.run:demo"),
    Command(name="download", config="collect.download.config:DownloadConfig", function="collect.download.run:download"),
    Command(name="check", config="collect.config:CheckConfig", function="collect.data.check:check"),
    Command(name="plan", config="collect.plan.config:PlanConfig", function="collect.plan.run:plan"),
    Command(name="collect", config="collect.config:CollectConfig", function="collect.run:collect"),
    Command(name="archive", config="collect.config:ArchiveConfig", function="collect.store.archive:archive"),
    Command(name="verify", config="collect.config:VerifyConfig", function="steer.edits.verified:verify"),
    Command(name="train", config="train_sae.config:TrainConfig", function="train_sae.run:train"),
    Command(
        name="evaluate", config="train_sae.quality.config:EvaluateConfig", function="train_sae.quality.splice:evaluate"
    ),
    Command(name="features", config="features.config:FeaturesConfig", function="features.run:features"),
    Command(name="profile", config="ask.config:ProfileConfig", function="ask.profile:run_profile"),
    Command(name="steer", config="steer.config:SteerConfig", function="steer.run:steer"),
    Command(name="report", config="report.config:ReportConfig", function="report.page:report"),
    Command(name="export", config="report.config:ExportConfig", function="report.dataset:export"),
    Command(name="browse", config="browse.config:BrowseConfig", function="browse.run:browse"),
)

DESCRIPTION = """\
What a video vision-language model sees, and how that decides its answers.

Each subcommand is one stage; `video-sae COMMAND --help` lists its options, and `video-sae --version` prints the
version. Every stage goes on where it was when it is run again.

In several processes, for collect, train, features and steer: torchrun --nproc-per-node 8 -m video_sae -- COMMAND …
"""

LONGEST_LINE = 8192
"""Characters of a message, or of an argument in one, that are printed; paths have up to 4096."""

REMEDIES = {
    errno.EACCES: "choose a place where you may write",
    errno.EDQUOT: "free some of your disk quota, then run the same command again",
    errno.ENOSPC: "free some disk space, then run the same command again",
    errno.EEXIST: "move it away or choose another place",
    errno.EIO: "check the disk, then run the same command again",
    errno.EISDIR: "a folder stands where a file belongs: move it away",
    errno.ELOOP: "a link leads to itself: remove it",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a file stands where a folder belongs: move it away, or choose another place",
    errno.EPERM: "choose a place where you may write",
    errno.EROFS: "choose a place where you may write",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after `video-sae`; those of this process where None.

    Returns:
        The exit status: 0 done, 2 user error, 128 and the signal's number interrupted.
    """
    with interruptible():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold what no encoding has
    if arguments[:1] == ["--"]:  # of torchrun's command line; who removes them depends on Python's version
        del arguments[0]
    if arguments == ["--version"]:
        print(f"video-sae {installed_versions()['video-sae'] or '(not installed)'}")
        return 0
    _set_up_logging()
    end_with_launcher()
    try:
        require_libraries()
        command, config = _parse(arguments)
        result = _resolve(command.function)(config)
    except UserError as error:
        return _fail(*error.args, *error.details)
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        return _fail(f"{error.filename or 'a file'}: {error.strerror}: {REMEDIES[error.errno]}.")
    except KeyboardInterrupt as error:
        why, status = (f" by {error.name}", error.status) if isinstance(error, Interrupted) else ("", 130)
        print(f"\ninterrupted{why}: run the same command again to go on from here.", file=sys.stderr)
        return status
    if result is not None:
        is_path = isinstance(result, PurePath)
        print(printable(result, LONGEST_LINE) if is_path else printable_lines(str(result)))
    return getattr(result, "exit_status", 0)


def _fail(message: str, *details: str) -> int:
    print(f"error: {printable(message, LONGEST_LINE)}", file=sys.stderr)
    for line in details:
        print(printable(line, LONGEST_LINE), file=sys.stderr)
    return 2


def _parse(arguments: Sequence[str]) -> tuple[Command, object]:
    """Return the chosen command and its config, or leave by SystemExit as tyro does for `--help` and wrong options."""
    import tyro

    commands = {_resolve(command.config): command for command in COMMANDS}
    choices = tuple(
        Annotated[config, tyro.conf.subcommand(command.name, prefix_name=False)] for config, command in commands.items()
    )
    union = cast("Any", Union)[choices]  # `X | Y` cannot be written for a tuple of types
    # tyro turns a ValueError of `__post_init__` into a box of its own; the original is in the chain of its SystemExit.
    words = io.StringIO()
    try:
        with contextlib.redirect_stderr(words):
            config = tyro.cli(
                union, prog="video-sae", description=DESCRIPTION, args=arguments, config=(tyro.conf.OmitArgPrefixes,)
            )
    except SystemExit as leave:
        cause: BaseException | None = leave
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        sys.stderr.write(printable_lines(words.getvalue()))  # the message repeats the arguments
        raise
    sys.stderr.write(printable_lines(words.getvalue()))
    return commands[cast("type[Any]", type(config))], config


def _resolve(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


class _ProgressBarHandler(logging.Handler):
    """Writes records to standard error above any tqdm bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:  # as logging's own handlers do: a message that fails must not end the run
            self.handleError(record)


class _PlainFormatter(logging.Formatter):
    """The message, preceded by its level from `warning` upwards; text from outside cannot break its line.

    Messages are our own, but their arguments may come from anywhere.
    """

    def format(self, record: logging.LogRecord) -> str:
        shown = copy.copy(record)
        if isinstance(record.args, tuple):
            shown.args = tuple(_shown(argument) for argument in record.args)
        message = printable_lines(super().format(shown))
        return message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}"


def _shown(argument: object) -> object:
    if isinstance(argument, Lines):
        return argument
    if isinstance(argument, UserError):
        return Lines("\n".join(printable(line, LONGEST_LINE) for line in (*argument.args, *argument.details)))
    is_text = isinstance(argument, (str, PurePath, BaseException))
    return printable(argument, LONGEST_LINE) if is_text else argument


def _set_up_logging() -> None:
    handler = _ProgressBarHandler()
    handler.setFormatter(_PlainFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in ("collect", "train_sae", "features", "steer", "report", "browse", "demo"):
        logging.getLogger(package).setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
