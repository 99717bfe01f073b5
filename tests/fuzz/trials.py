"""A trial: one file of one kind spoilt in a copy of the finished run, and one command that reads it."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from PIL import Image

from tests.fuzz import process
from tests.fuzz.commands import COMMANDS, Command
from tests.fuzz.kinds import KINDS, Kind
from tests.fuzz.mutations import mutate
from tests.fuzz.outcomes import Evidence, Verdict, is_left_to_readers, judge
from tests.fuzz.run_of_stages import build
from tests.fuzz.snapshots import snapshot

LIMIT_S = 20.0
BUILD_LIMIT_S = 600.0
OWN_NAMES = ("outcome.json", "output.txt", "faults.txt", "outside")
"""What a trial itself makes in the bench's folder."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is done, as names and a seed that do not depend on the run."""

    kind: str
    command: str
    seed: int
    """Of the choice of file and of the mutation."""

    @classmethod
    def draw(cls, rng: Random, kinds: tuple[Kind, ...] = KINDS) -> Trial:
        """Choose a kind, then a command that reads it."""
        kind = rng.choice(kinds)
        return cls(kind=kind.name, command=rng.choice(kind.readers), seed=rng.randrange(2**32))


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a trial did and how it ended."""

    trial: Trial
    path: str
    mutation: str
    done: str
    verdict: Verdict

    def to_json(self) -> dict[str, object]:
        """Everything, as JSON takes it."""
        return asdict(self)

    def __str__(self) -> str:
        """Say in one line what happened."""
        trial = self.trial
        return (
            f"{self.verdict.outcome}: `{trial.command}` after {self.path} was {self.mutation} ({self.done}): "
            f"{self.verdict.reason} [{trial.kind}, seed {trial.seed}]"
        )


class Bench:
    """The finished run, and the place where copies of it are spoilt, one after another."""

    def __init__(self, folder: Path) -> None:
        """Build the run below `folder`, which is empty or not there."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        ending = process.call(build, folder, BUILD_LIMIT_S)
        assert ending.status == 0, f"the run cannot be built: {ending.error}\n{ending.text[-2000:]}{ending.last_words}"
        self.reference = snapshot(folder / "reference")
        self.printed = {
            name: process.run(command.words, folder, BUILD_LIMIT_S).text
            for name, command in COMMANDS.items()
            if not command.outputs
        }
        self._kept = self._untouchable()

    def try_out(self, trial: Trial, limit_s: float = LIMIT_S) -> Report:
        """Run a trial."""
        command, kind = COMMANDS[trial.command], next(kind for kind in KINDS if kind.name == trial.kind)
        world, outside, rng = self.folder / "world", self.folder / "outside", Random(trial.seed)
        self._prepare(command)
        path = rng.choice(self._files(kind))
        own, whole = str(path.relative_to(world)), snapshot(world)
        name, done = mutate(path, rng, outside)
        spoilt = snapshot(world)
        others = tuple(other for other in whole if other != own and spoilt.get(other) != whole[other])
        return self._judged(trial, kind, (own, *others), name, done, limit_s)

    def without_mutation(self, name: str) -> Report:
        """Run a command on an unspoilt copy."""
        self._prepare(COMMANDS[name])
        trial = Trial(kind="none", command=name, seed=0)
        kind = Kind(name="none", files=(), readers=())
        return self._judged(trial, kind, ("nothing",), "left alone", "nothing", LIMIT_S)

    def output(self) -> str:
        """What the last command wrote to standard output and error."""
        return (self.folder / "output.txt").read_text(encoding="utf-8", errors="backslashreplace")

    def _prepare(self, command: Command) -> None:
        """Make a fresh world as the command is to find it."""
        world, outside = self.folder / "world", self.folder / "outside"
        for place in (world, outside):
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.folder / "reference", world)
        outside.mkdir()
        (outside / "canary.txt").write_text("nobody may touch this\n")
        if command.stopped is not None:
            shutil.rmtree(world / command.stopped)
            shutil.copytree(self.folder / "stopped" / command.stopped, world / command.stopped)
        for place in command.cleared:
            target = world / place
            shutil.rmtree(target) if target.is_dir() else target.unlink()

    def _files(self, kind: Kind) -> list[Path]:
        world = self.folder / "world"
        found = sorted({path for pattern in kind.files for path in world.glob(pattern) if path.is_file()})
        found = [path for path in found if path.suffix != ".lock"]
        assert found, f"there is no file of the kind {kind.name} in {world}"
        return found

    def _judged(
        self, trial: Trial, kind: Kind, spoilt: tuple[str, ...], mutation: str, done: str, limit_s: float
    ) -> Report:
        evidence = self._run(COMMANDS[trial.command], kind, spoilt, limit_s)
        verdict, guard = judge(evidence), evidence.command.guard
        if verdict.outcome == "silent" and guard is not None and is_left_to_readers(evidence):
            found = judge(self._run(COMMANDS[guard], kind, spoilt, limit_s))
            if found.outcome.startswith("refused"):
                verdict = Verdict(outcome="told", reason=f"by `{guard}`: {found.reason}")
        return Report(trial=trial, path=spoilt[0], mutation=mutation, done=done, verdict=verdict)

    def _run(self, command: Command, kind: Kind, spoilt: tuple[str, ...], limit_s: float) -> Evidence:
        before = snapshot(self.folder / "world")
        outside = snapshot(self.folder / "outside")
        ending = process.run(command.words, self.folder, limit_s)
        return Evidence(
            command=command,
            kind=kind,
            path=spoilt[0],
            others=spoilt[1:],
            ending=ending,
            reference=self.reference,
            before=before,
            after=snapshot(self.folder / "world"),
            printed=self.printed.get(command.name),
            added=self._added_to_page(),
            is_picture=_is_picture(self.folder / "world" / spoilt[0]),
            is_outside_whole=snapshot(self.folder / "outside") == outside and self._untouchable() == self._kept,
        )

    def _added_to_page(self) -> str:
        """Lines of the report that the unspoilt run's has not; `less` where it only lacks some."""
        old, new = (self.folder / place / "run/report/index.html" for place in ("reference", "world"))
        if not new.is_file():
            return ""
        known, said = (_lines_of_page(path) for path in (old, new))
        return "\n".join(line for line in said if line not in set(known)) or "less" * (len(said) < len(known))

    def _untouchable(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file that trials are copied from."""
        return {
            str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
            for place in ("reference", "stopped", "published")
            for path in (self.folder / place).rglob("*")
        } | {path.name: (0, 0) for path in self.folder.iterdir() if path.name not in OWN_NAMES}


def _lines_of_page(path: Path) -> list[str]:
    """The lines of an HTML page without the content of its pictures."""
    return re.sub(r"data:[^\"]*", "", path.read_text(encoding="utf-8", errors="replace")).splitlines()


def _is_picture(path: Path) -> bool:
    """Whether all of a file can be shown as a picture."""
    if path.suffix != ".jpg" or not path.is_file():
        return False
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True
