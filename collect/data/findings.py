"""What is wrong or odd in a folder of data, collected so that it can be listed, logged, or end a run.

A finding says where it is, what is wrong and what follows. `refused` means that the data is not read;
`warning` that it is read, but that somebody should look at it; `note` that it is read in a way worth mentioning.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from collect.errors import UserError

Level = Literal["refused", "warning", "note"]
LEVELS: tuple[Level, ...] = ("refused", "warning", "note")
"""From worst to best."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found."""

    level: Level
    place: str
    """File, video and entry, as `Fields` names them; empty if `what` says it all."""
    what: str
    """What is wrong, always in the same words for the same thing."""
    detail: str = ""
    """The numbers of this place."""
    follows: str = ""
    """What is done about it, or what the user can do."""

    def __str__(self) -> str:
        what = f"{self.what} ({self.detail})" if self.detail else self.what
        return ": ".join(part for part in (self.place, what, self.follows) if part)


class Findings:
    """Collects findings.

    Args:
        stop: end at the first refusal with a `UserError`, instead of collecting it.
    """

    def __init__(self, *, stop: bool = True) -> None:
        self._stop = stop
        self._found: list[Finding] = []

    def refuse(self, place: str, what: str, follows: str, detail: str = "") -> None:
        """Something that is not read.

        Raises:
            UserError: unless refusals are collected.
        """
        self._refuse(Finding(level="refused", place=place, what=what, detail=detail, follows=follows))

    def fault(self, error: UserError) -> None:
        """Something that is not read, for a reason that was raised; raised again unless refusals are collected."""
        if self._stop:
            raise error
        self._refuse(Finding(level="refused", place="", what=str(error).rstrip(".")))

    def warn(self, place: str, what: str, follows: str, detail: str = "") -> None:
        """Something that is read, but that somebody should look at."""
        self._found.append(Finding(level="warning", place=place, what=what, detail=detail, follows=follows))

    def note(self, place: str, what: str, follows: str, detail: str = "") -> None:
        """Something that is read in a way worth mentioning."""
        self._found.append(Finding(level="note", place=place, what=what, detail=detail, follows=follows))

    def _refuse(self, finding: Finding) -> None:
        if self._stop:
            raise UserError(f"{finding}.")
        self._found.append(finding)

    @property
    def found(self) -> tuple[Finding, ...]:
        """All findings, worst first, otherwise in the order in which they were made."""
        return tuple(sorted(self._found, key=lambda finding: LEVELS.index(finding.level)))

    def log(self, logger: logging.Logger) -> None:
        """Log warnings and notes, one line per kind, which names the first place."""
        for level, method in (("warning", logger.warning), ("note", logger.info)):
            for same in _by_kind(finding for finding in self._found if finding.level == level):
                first = str(same[0])
                method("%s", first if len(same) == 1 else f"{first} (and {len(same) - 1:,} more like it)")


def _by_kind(findings: Iterable[Finding]) -> list[list[Finding]]:
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.what, finding.follows), []).append(finding)
    return list(kinds.values())
