"""One file over HTTP, resumable: whatever has arrived stays, also after a crash, and only the rest is asked for.

    TARGET.partial         what has arrived so far
    TARGET.partial.json    which file that is part of: address, size, and the server's mark of its version

The rest is asked for with `Range` and `If-Range`. A server that ignores them, or whose file has changed, sends the
whole file, and it begins anew; bytes of two versions never end up in one file. Connections that break are opened
again, with growing pauses, as long as each brings something new.

Python's own client does all of it: redirects and proxies of the environment come with it, and what a library would
add, connection pools and parallel requests, is of no use for a few large files one after another.
"""

import errno
import http.client
import json
import logging
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import Any, cast

from collect.artefact import write_atomic
from collect.errors import UserError

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20
LONGEST_PAUSE_S = 30.0
TRIED_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
RANGE_NOT_SATISFIABLE = 416
NO_SUCH_METHOD = frozenset({403, 405, 501})
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to put up with a bad connection."""

    timeout_s: float = 60.0
    attempts: int = 8
    """Connections in a row that bring nothing new before giving up."""
    first_pause_s: float = 1.0
    """Before the second connection; each further pause is twice as long, up to `LONGEST_PAUSE_S`."""

    def pause(self, n_failures: int) -> None:
        """Wait before the next connection."""
        time.sleep(min(self.first_pause_s * 2 ** (n_failures - 1), LONGEST_PAUSE_S))


@dataclass(frozen=True, kw_only=True)
class _Version:
    """Which content a partial file is part of."""

    url: str
    size: int | None
    mark: str | None
    """Strong ETag, or else the time of the last change."""


def remote_size(url: str, patience: Patience) -> int | None:
    """Ask for the size of a file in bytes; None where the server does not say.

    Raises:
        UserError: the file is not there, or the server cannot be reached.
    """
    failures = 0
    while True:
        try:
            with _request(url, "HEAD", {}, patience.timeout_s) as response:
                return _length(response.headers)
        except urllib.error.HTTPError as error:
            if error.code in NO_SUCH_METHOD:
                return None
            reason = _refusal(url, error)
        except (http.client.HTTPException, OSError) as error:
            reason = _breakage(url, error)
        failures += 1
        if failures >= patience.attempts:
            raise UserError(f"{url} cannot be reached ({reason}): check the network, then run the same command again.")
        patience.pause(failures)


def arrived_bytes(target: Path) -> int:
    """Bytes of a file that an earlier `fetch` has left."""
    for path in (target, _partial(target)):
        if path.is_file():
            return path.stat().st_size
    return 0


def fetch(url: str, target: Path, patience: Patience, progress: Callable[[int, int | None], None]) -> None:
    """Fetch a file, going on where an earlier attempt ended; a file that is there is taken to be whole.

    Args:
        url: http or https address.
        target: file to write; it appears under this name once it is whole.
        patience: how long to put up with a bad connection.
        progress: is told the bytes that have arrived and the size in bytes, where it is known.

    Raises:
        UserError: the file is not on the server, the connection is too bad, or the disk is full. What has
            arrived stays.
    """
    if target.exists():
        return
    if _known_version(url, target) is None:
        _forget(target)
    failures: int = 0
    reason: str | None = None
    most = arrived_bytes(target)
    while failures < patience.attempts:
        try:
            reason = _receive(url, target, patience.timeout_s, progress)
            if reason is None:
                return
        except urllib.error.HTTPError as error:
            if error.code == RANGE_NOT_SATISFIABLE:
                _forget(target)
                reason = "the server has fewer bytes than it promised"
            else:
                reason = _refusal(url, error)
        except (http.client.HTTPException, OSError) as error:
            reason = _breakage(url, error)
        arrived = arrived_bytes(target)
        failures = 0 if arrived > most else failures + 1
        most = max(most, arrived)
        logger.debug("%s: %s after %d bytes", url, reason, arrived)
        if 0 < failures < patience.attempts:
            patience.pause(failures)
    raise UserError(
        f"{url} broke off {failures} times in a row after {arrived_bytes(target):,} bytes ({reason}): "
        "check the network, then run the same command again; it goes on where it was."
    )


def _receive(url: str, target: Path, timeout_s: float, progress: Callable[[int, int | None], None]) -> str | None:
    """Receive over one connection; None where the file is whole and has its name, else why it is not."""
    known = _known_version(url, target)
    offset = _partial(target).stat().st_size if known else 0
    if known is not None and offset == known.size:
        _finish(target)
        return None
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and known is not None and known.mark is not None:
        headers["If-Range"] = known.mark
    with _request(url, "GET", headers, timeout_s) as response:
        start, size = _answered_range(response)
        version = _Version(url=url, size=size, mark=_mark(response.headers))
        if start and (start != offset or version != known):
            _forget(target)
            return "the server sent another part than the one asked for"
        with _disk(target):
            if start == 0:
                _begin(target, version)
            file = _partial(target).open("ab")
        try:
            arrived = start
            progress(arrived, size)
            while block := response.read(BLOCK_BYTES):
                with _disk(target):
                    file.write(block)
                    file.flush()
                arrived += len(block)
                progress(arrived, size)
        finally:
            with _disk(target):
                file.close()
    if size is not None and arrived != size:
        return f"the connection closed at {arrived:,} of {size:,} bytes"
    _finish(target)
    return None


def _finish(target: Path) -> None:
    _partial(target).replace(target)
    _notes(target).unlink()


def _begin(target: Path, version: _Version) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _notes(target).unlink(missing_ok=True)  # before the content goes, so that no notes stand beside other content
    _partial(target).write_bytes(b"")
    write_atomic(_notes(target), json.dumps(asdict(version)) + "\n")


def _forget(target: Path) -> None:
    _notes(target).unlink(missing_ok=True)
    _partial(target).unlink(missing_ok=True)


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def _notes(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial.json")


def _known_version(url: str, target: Path) -> _Version | None:
    """What the partial file is part of; None where there is none, or it is of another address."""
    try:
        content = cast("dict[str, Any]", json.loads(_notes(target).read_text(encoding="utf-8")))
        version = _Version(**content)
    except (OSError, ValueError, TypeError):
        return None
    return version if version.url == url and _partial(target).is_file() else None


@contextmanager
def _disk(target: Path) -> Generator[None]:
    """Tell errors of the disk from those of the connection, which are tried again."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise UserError(
                f"{_partial(target)} cannot be written ({error.strerror or error}): choose an --out where you may "
                "write."
            ) from None
        raise UserError(
            f"The disk is full while {target} is being fetched: make room there and run the same command again; "
            "it goes on where it was."
        ) from None


def _request(url: str, method: str, headers: Mapping[str, str], timeout_s: float) -> http.client.HTTPResponse:
    request = urllib.request.Request(
        url, method=method, headers={"User-Agent": "video-sae", "Accept-Encoding": "identity", **headers}
    )
    return cast("http.client.HTTPResponse", urllib.request.urlopen(request, timeout=timeout_s))


def _answered_range(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where the body begins in the file, and the size of the whole file where the server says."""
    if response.status != http.client.PARTIAL_CONTENT:
        return 0, _length(response.headers)
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", (response.headers.get("Content-Range") or "").strip())
    if found is None:
        raise http.client.HTTPException("a partial answer that does not say of what")
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _length(headers: Message) -> int | None:
    text = (headers.get("Content-Length") or "").strip()
    return int(text) if text.isdecimal() else None


def _mark(headers: Message) -> str | None:
    tag = headers.get("ETag")
    return tag if tag is not None and not tag.startswith("W/") else headers.get("Last-Modified")


def _refusal(url: str, error: urllib.error.HTTPError) -> str:
    """Reason to try again, or a `UserError` where that is no use."""
    error.close()
    if error.code in TRIED_AGAIN:
        return f"the server answers {error.code} {error.reason}"
    raise UserError(
        f"{url} cannot be fetched: the server answers {error.code} {error.reason}; check --base-url, or choose other "
        "--split and --parts."
    )


def _breakage(url: str, error: http.client.HTTPException | OSError) -> str:
    """Reason to try again, or a `UserError` where that is no use."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        raise UserError(
            f"{url}: the server's certificate is not trusted ({cause.verify_message}): check the machine's clock, "
            "proxy and certificates."
        )
    return str(cause).strip() or type(cause).__name__
