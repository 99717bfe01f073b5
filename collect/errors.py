"""The one exception type whose message is meant for the person at the command line."""

from collections.abc import Sequence


class UserError(ValueError):
    """An error that the user can fix: the message is one sentence that names the cause and the remedy.

    The command line prints it as `error: MESSAGE` without a traceback and exits with status 2. Broken invariants of
    the program itself are `assert`s, never this.

    Args:
        message: the sentence; a line break in it must come from outside, and is printed escaped.
        details: lines listed below it.
    """

    def __init__(self, message: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)

    def __str__(self) -> str:
        """The message and its details, one line each."""
        return "\n".join((*self.args, *self.details))
