"""`--tokens` in one word: which visual tokens of a clip are stored.

    all        every one
    every:4    those of every fourth time step, starting with the first
    tracks     those on annotated objects

Only the word is read here, without numpy, so that configs may check it; `collect.tokens.subset` picks the tokens.
"""

import re
from dataclasses import dataclass

from collect.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TokenChoice:
    """A parsed `--tokens`."""

    every: int = 1
    """Number of time steps from one that is stored to the next."""
    on_tracks: bool = False

    @classmethod
    def parse(cls, text: str) -> "TokenChoice":
        """Read `all`, `every:N` or `tracks`.

        Raises:
            UserError: it is none of these.
        """
        match = re.fullmatch(r"all|(tracks)|every:([1-9]\d*)", text)
        if match is None:
            raise UserError(f"--tokens must be all, tracks or every:N such as every:4, not {text!r}.")
        return cls(every=int(match[2] or 1), on_tracks=match[1] is not None)
