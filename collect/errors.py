"""The one exception type whose message is meant for the person at the command line."""


class UserError(ValueError):
    """Something the user can put right: the message is one sentence that names the cause and the remedy.

    The command line prints it as `error: MESSAGE` without a traceback and exits with status 2. Broken invariants of
    the program itself are `assert`s, never this.
    """
