"""Whether what a command did with a spoilt file is right.

Right is the result of the unspoilt run; another result that is told (the file, its folder or its stage is named where
the user sees it) or, of an input that somebody else made, recorded by its hash; or exit status 2 with one sentence that
names the file. A spoilt file that a command leaves as it is for later readers is right where its guard, another
command, then refuses it by name. Everything else is wrong, as is anything written beside the command's own folders.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath

from tests.fuzz.commands import Command
from tests.fuzz.kinds import Kind
from tests.fuzz.process import Ending
from tests.fuzz.snapshots import Snapshot

RIGHT = ("same", "told", "recomputed", "refused", "refused by folder")
WRONG = ("traceback", "crash", "hang", "outside", "spoilt", "controls", "unnamed", "status", "silent")
USER_ERROR = 2
LONGEST_MESSAGE = 2000


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of a trial, one of `RIGHT` or `WRONG`, and why."""

    outcome: str
    reason: str

    @property
    def is_right(self) -> bool:
        """Whether the command did what it should."""
        return self.outcome in RIGHT


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a trial."""

    command: Command
    kind: Kind
    path: str
    """The spoilt file, below the world."""
    others: tuple[str, ...] = ()
    """Files that the same mutation spoilt too: swapped files are wrong in both places, and either may be named."""
    ending: Ending
    reference: Snapshot
    before: Snapshot
    """The world when the command began: spoilt, and without what it is to make."""
    after: Snapshot
    printed: str | None
    """Text that the command prints of the unspoilt run, where its result is that."""
    added: str
    """What the report says that it does not say of the unspoilt run; its pictures do not count."""
    is_picture: bool
    """Whether the spoilt file is a picture all the same."""
    is_outside_whole: bool

    @property
    def spoilt(self) -> tuple[str, ...]:
        """All files that were spoilt."""
        return (self.path, *self.others)


def judge(evidence: Evidence) -> Verdict:
    """Say whether a trial ended rightly."""
    ending = evidence.ending
    for check in (_ended, _kept, _readable):
        verdict = check(evidence)
        if verdict is not None:
            return verdict
    if ending.status == USER_ERROR:
        return _refusal(evidence)
    if ending.status != 0:
        return Verdict(outcome="status", reason=f"exit status {ending.status}: {_last(ending.text)}")
    return _result(evidence)


def _ended(evidence: Evidence) -> Verdict | None:
    """Whether the process ended by itself and without a traceback."""
    ending = evidence.ending
    if ending.timed_out:
        return Verdict(outcome="hang", reason=_stack(ending.last_words) or _last(ending.text))
    if ending.signal is not None:
        return Verdict(outcome="crash", reason=f"signal {ending.signal}: {_stack(ending.last_words)}")
    if ending.error is not None:
        return Verdict(outcome="traceback", reason=ending.error)
    if "Traceback (most recent call last)" in ending.text:
        return Verdict(outcome="traceback", reason=f"in a thread: {_last(ending.text)}")
    return None


def _kept(evidence: Evidence) -> Verdict | None:
    """Whether everything is as before that the command has no business to write."""
    if not evidence.is_outside_whole:
        return Verdict(outcome="outside", reason="something was written outside of the run")
    own = evidence.command.outputs
    changed = [path for path in _different(evidence.before, evidence.after) if not _below(path, own)]
    return Verdict(outcome="spoilt", reason=f"{changed[0]} was changed") if changed else None


def _readable(evidence: Evidence) -> Verdict | None:
    """Whether what it wrote to the terminal moves no cursor and turns no text round."""
    text = re.sub(r"\x1b\[A", "", evidence.ending.text)  # tqdm's, between two bars
    for character in text:
        if character not in "\n\r\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            place = text.index(character)
            near = text[max(0, place - 40) : place + 10]
            return Verdict(outcome="controls", reason=f"{character!r} was printed: {near!a}")
    return None


def _refusal(evidence: Evidence) -> Verdict:
    """Whether a refusal is one sentence that names the file."""
    text = evidence.ending.text
    whole = text.strip() if evidence.command.lists else ""
    message = _message(text) or whole
    shown = message.removeprefix("error: ")[:300]
    if not message or ("\n" in message and not evidence.command.lists):
        return Verdict(outcome="unnamed", reason=f"not one sentence: {_last(text)!a}")
    if len(message) > LONGEST_MESSAGE and not evidence.command.lists:
        return Verdict(outcome="unnamed", reason=f"a message of {len(message)} characters: {shown}")
    if any(_own_name(path) in message for path in evidence.spoilt):
        return Verdict(outcome="refused", reason=shown)
    if any(folder in message for path in evidence.spoilt for folder in _folders(path)):
        return Verdict(outcome="refused by folder", reason=shown)
    return Verdict(outcome="unnamed", reason=shown)


def _message(text: str) -> str:
    """The refusal, from the last line that begins with `error: `; a library's words in it may have that too."""
    starts = [found.start(1) for found in re.finditer(r"(?:^|[\r\n])(error: )", text)] or [text.rfind("error: ")]
    return text[starts[-1] :].strip() if starts[-1] >= 0 else ""


def is_left_to_readers(evidence: Evidence) -> bool:
    """Whether a result differs from that of the unspoilt run in what was spoilt alone, which was not touched."""
    after, before, own = evidence.after, evidence.before, evidence.command.outputs
    differing = {name for name in _different(evidence.reference, after) if _below(name, own)}
    return {evidence.path} <= differing <= {*evidence.spoilt} and all(after.get(n) == before.get(n) for n in differing)


def _result(evidence: Evidence) -> Verdict:
    """Whether a result is that of the unspoilt run, or is told or known to be another."""
    command, text = evidence.command, evidence.ending.text
    untouched = [path for path in evidence.spoilt if evidence.after.get(path) == evidence.before.get(path)]
    left_out = {*command.spared, *(untouched if evidence.kind.is_scratch else ())}
    differing = [
        path
        for path in _different(evidence.reference, evidence.after)
        if _below(path, command.outputs) and path not in left_out and not path.endswith(".tmp")
    ]
    if not differing and evidence.printed in (None, text):
        return Verdict(outcome="same", reason="")
    reason = f"{', '.join(differing[:4])} differ" if differing else "what it prints differs"
    if evidence.kind.is_shown and evidence.is_picture and not evidence.added:
        return Verdict(outcome="same", reason="but for the picture, which is shown as it is")
    if _is_told(evidence):
        return Verdict(outcome="told", reason=reason)
    has_config = any(path.endswith("config.json") for path in evidence.after if _below(path, command.outputs))
    is_recorded = command.is_first or not has_config or any(path.endswith("config.json") for path in differing)
    if evidence.kind.is_input and is_recorded:
        return Verdict(outcome="recomputed", reason=reason)
    return Verdict(outcome="silent", reason=reason)


def _is_told(evidence: Evidence) -> bool:
    """Whether the user is told of the file, by a warning or on the page."""
    warnings = [line for line in re.split(r"[\r\n]+", evidence.ending.text) if line.startswith("warning: ")]
    text = evidence.ending.text
    if any(name in text or name in evidence.added for name in map(_own_name, evidence.spoilt)):
        return True
    if any(folder in line for line in warnings for path in evidence.spoilt for folder in _folders(path)):
        return True
    stage = {"sae": "train", "activations": "collect"}
    words = {stage.get(part, part) for part in PurePosixPath(evidence.path).parts[1:2]}
    missing = re.compile(r"missing|damaged|cannot|not finished|not been run|unfinished", re.IGNORECASE)
    lines = evidence.added.splitlines()
    return any(missing.search(line) and any(word in line for word in words) for line in lines)


def _own_name(path: str) -> str:
    """How a message may name a file: its name; of chunks, which are all called 0, with two folders before it."""
    found = PurePosixPath(path)
    return found.name if found.suffix else "/".join(found.parts[-3:])


def _different(one: Snapshot, other: Snapshot) -> list[str]:
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def _below(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _folders(path: str) -> list[str]:
    """The folders that a message may name in the file's stead: its own, and those above it below the run."""
    return [str(parent) for parent in PurePosixPath(path).parents if str(parent) not in (".", "run")]


def _last(text: str) -> str:
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    return lines[-1].strip()[:300] if lines else "nothing was printed"


def _stack(words: str) -> str:
    """The innermost place in the product that faulthandler saw."""
    found = re.findall(r'File "([^"]*)", line (\d+) in (\w+)', words)
    own = [f"{PurePosixPath(file).parent.name}/{PurePosixPath(file).name}:{line} {name}" for file, line, name in found]
    wanted = [place for place in own if re.match(r"(collect|train_sae|features|steer|vlm|kernels)/", place)]
    return (wanted or own or [""])[0]
