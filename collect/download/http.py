"""One file over HTTP, resumable: whatever has arrived is kept, even after a crash, and only the rest is requested.

The rest is requested with `Range` and `If-Range`. If a server ignores them, or its file has changed, it sends the whole
file, and the download starts over. Bytes of two versions never end up in one file, nor any beyond the size that the
server stated or that is allowed. Broken connections are opened again, with growing pauses or the pause that the server
asks for, as long as each brings something new.
"""

import http.client
import logging
import ssl
import time
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from collect.download.answer import Part, asked_pause_s, stated_length, stated_part, version_mark
from collect.download.client import SLOWEST_BYTES, Answer, ask
from collect.download.partial import Partial, Version
from collect.errors import UserError
from collect.printable import printable

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20
LONGEST_PAUSE_S = 30.0
LONGEST_ASKED_S = 300.0
"""If a server asks for a longer pause, the download ends."""
MOST_CONNECTIONS = 1000
"""For one file, and one more for each MiB of it."""
TRIED_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
RANGE_NOT_SATISFIABLE = 416
NO_SUCH_METHOD = frozenset({403, 405, 501})


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to put up with a bad connection."""

    timeout_s: float = 60.0
    attempts: int = 8
    """Connections in a row that bring nothing new before giving up."""
    first_pause_s: float = 1.0
    """Pause before the second connection; each further pause is twice as long, up to `LONGEST_PAUSE_S`."""

    def pause(self, n_failures: int, asked_s: float = 0.0) -> None:
        """Wait before the next connection, at least as long as the server has asked for."""
        own_s = min(self.first_pause_s * 2 ** min(n_failures - 1, 16), LONGEST_PAUSE_S)
        if asked_s > own_s:
            logger.info("the server asks for a pause of %.0f s", asked_s)
        time.sleep(max(own_s, asked_s))


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """Why a connection did not bring the whole file, if another one might."""

    reason: str
    asked_s: float = 0.0
    """Pause that the server asks for, in seconds."""
    is_stall: bool = False
    """Whether it ended because no more data came."""


def remote_size(url: str, patience: Patience, most_bytes: int) -> int | None:
    """Ask for the size of a file in bytes; None if the server does not say.

    Raises:
        UserError: the file is not there or larger than `most_bytes`, or the server cannot be reached.
    """
    failures = 0
    while True:
        try:
            with ask(url, "HEAD", {}, patience.timeout_s) as answer:
                size = stated_length(answer.headers)
            _require_allowed(url, size, most_bytes)
            return size
        except urllib.error.HTTPError as error:
            if error.code in NO_SUCH_METHOD:
                return None
            failure = _refusal(url, error)
        except (http.client.HTTPException, OSError) as error:
            failure = _breakage(url, error)
        failures += 1
        if failures >= patience.attempts:
            raise UserError(
                f"{printable(url)} cannot be reached ({failure.reason}): check the network, then run the same command "
                "again."
            )
        patience.pause(failures, failure.asked_s)


def arrived_bytes(target: Path) -> int:
    """Bytes of a file that an earlier `fetch` has left."""
    return target.stat().st_size if target.is_file() else Partial(target).n_bytes


def fetch(
    url: str, target: Path, patience: Patience, most_bytes: int, progress: Callable[[int, int | None], None]
) -> None:
    """Fetch a file, continuing where an earlier attempt ended; a file that is there is taken to be complete.

    Args:
        url: http or https address.
        target: file to write; it appears under this name once it is whole.
        patience: how long to put up with a bad connection.
        most_bytes: a larger file is refused.
        progress: is called with the bytes that have arrived and the size in bytes, if known.

    Raises:
        UserError: the file is not on the server or too large, the connection is too bad, or the disk is full. What has
            arrived of the right file stays.
    """
    if target.exists():
        return
    partial = Partial(target)
    if partial.version(url) is None:
        partial.forget()
    failures = 0
    failure = _Failure(reason="nothing was tried")
    most = partial.n_bytes
    for n_connections in range(1, MOST_CONNECTIONS + most_bytes // BLOCK_BYTES):
        try:
            outcome = _receive(url, partial, patience.timeout_s, most_bytes, progress)
        except urllib.error.HTTPError as error:
            if error.code == RANGE_NOT_SATISFIABLE:
                error.close()
                partial.forget()
                outcome = _Failure(reason="the server has fewer bytes than it promised")
            else:
                outcome = _refusal(url, error)
        except (http.client.HTTPException, OSError) as error:
            outcome = _breakage(url, error)
        if outcome is None:
            return
        failure = outcome
        arrived = partial.n_bytes
        # A connection that only trickles is no better than one that brings nothing.
        failures = 0 if arrived > most + (SLOWEST_BYTES if failure.is_stall else 0) else failures + 1
        most = max(most, arrived)
        logger.debug("%s: %s after %d bytes", url, failure.reason, arrived)
        if failures >= patience.attempts or n_connections >= MOST_CONNECTIONS + most // BLOCK_BYTES:
            break
        if failures:
            patience.pause(failures, failure.asked_s)
    times = f"{failures} times in a row" if failures else "too often"
    raise UserError(
        f"{printable(url)} broke off {times} after {partial.n_bytes:,} bytes ({failure.reason}): "
        "check the network, then run the same command again; it goes on where it was."
    )


def _receive(
    url: str, partial: Partial, timeout_s: float, most_bytes: int, progress: Callable[[int, int | None], None]
) -> _Failure | None:
    """Receive over one connection; None if the file is complete and has its name, else why it is not."""
    known = partial.version(url)
    offset = partial.n_bytes if known else 0
    if known is not None and offset == known.size:
        partial.finish()
        return None
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and known is not None and known.mark is not None:
        headers["If-Range"] = known.mark
    with ask(url, "GET", headers, timeout_s) as answer:
        part = stated_part(answer.status, answer.headers)
        version = Version(url=url, size=part.size if part else None, mark=version_mark(answer.headers))
        if part is None or (part.start and (part.start != offset or version != known)):
            partial.forget()
            return _Failure(reason="the server sent another part than the one asked for, or something else")
        _require_allowed(url, part.size, most_bytes)
        if part.start == 0:
            partial.begin(version)
        arrived = _append(answer, part, partial, most_bytes, progress)
    end = part.stop if part.size is None else part.size
    if arrived > most_bytes or (part.stop is not None and arrived > part.stop):
        partial.forget()
        _require_allowed(url, arrived, most_bytes)
        return _Failure(reason="the server sent more than it had announced")
    if end is not None and arrived != end:
        return _Failure(reason=f"the connection closed at {arrived:,} of {end:,} bytes")
    partial.finish()
    return None


def _append(
    answer: Answer, part: Part, partial: Partial, most_bytes: int, progress: Callable[[int, int | None], None]
) -> int:
    """Add the body to what has arrived; stop as soon as it is longer than announced or allowed.

    Returns:
        How many bytes of the file have arrived, with those that are too many.
    """
    stop = most_bytes if part.stop is None else min(part.stop, most_bytes)
    arrived = part.start
    progress(arrived, part.size)
    with partial.appending() as add:
        while block := answer.read_block(BLOCK_BYTES):
            arrived += len(block)
            if arrived > stop:
                break
            add(block)
            progress(arrived, part.size)
    return arrived


def _require_allowed(url: str, size: int | None, most_bytes: int) -> None:
    if size is not None and size > most_bytes:
        raise UserError(
            f"{printable(url)} has {size:,} bytes or more, and what is published there at most {most_bytes:,}: "
            "check --base-url."
        )


def _refusal(url: str, error: urllib.error.HTTPError) -> _Failure:
    """Reason to try again, or a `UserError` if that is no use."""
    error.close()
    says = f"the server answers {error.code} {printable(error.reason, 80)}"
    asked_s = asked_pause_s(error.headers, datetime.now(UTC))
    if error.code not in TRIED_AGAIN:
        raise UserError(
            f"{printable(url)} cannot be fetched: {says}; check --base-url, or choose other --split and --parts."
        )
    if asked_s > LONGEST_ASKED_S:
        raise UserError(
            f"{printable(url)} cannot be fetched now: {says} and asks for a pause of {asked_s:,.0f} s: run the same "
            "command again then; it goes on where it was."
        )
    return _Failure(reason=says, asked_s=asked_s)


def _breakage(url: str, error: http.client.HTTPException | OSError) -> _Failure:
    """Reason to try again, or a `UserError` if that is no use."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        raise UserError(
            f"{printable(url)}: the server's certificate is not trusted ({printable(cause.verify_message)}): check the "
            "machine's clock, proxy and certificates."
        )
    reason = str(cause).strip() or type(cause).__name__
    return _Failure(reason=printable(reason), is_stall=isinstance(cause, TimeoutError))
