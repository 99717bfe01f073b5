"""What a server's answer says about the file that it sends: read from status and headers, which may hold anything.

A wrong header counts as missing if the body can do without it; otherwise it makes the answer useless.
"""

import email.utils
import http.client
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message

_NUMBER = r"[0-9]{1,18}"
_LONGEST_MARK = 1024
"""Characters; what servers send has fewer than a hundred."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which bytes of the file an answer contains."""

    start: int
    """The first one."""
    stop: int | None
    """The one after the last; None if only the end of the answer shows it."""
    size: int | None
    """Bytes of the whole file; None if the server does not say."""


def stated_part(status: int, headers: Message) -> Part | None:
    """Read which part of the file comes; None if the answer has none, or contradicts itself."""
    length = stated_length(headers)
    if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        return None  # these bytes are not those of the file, which the ranges and sizes in the other headers are about
    if status == http.client.OK:
        return Part(start=0, stop=length, size=length)
    found = re.fullmatch(
        rf"bytes ({_NUMBER})-({_NUMBER})/({_NUMBER}|\*)", (headers.get("Content-Range") or "").strip(), re.ASCII
    )
    if status != http.client.PARTIAL_CONTENT or found is None:
        return None
    start, stop = int(found[1]), int(found[2]) + 1
    size = None if found[3] == "*" else int(found[3])
    if start >= stop or (size is not None and stop > size) or length not in (None, stop - start):
        return None
    return Part(start=start, stop=stop, size=size)


def stated_length(headers: Message) -> int | None:
    """Bytes of the answer's body; None if it does not say so in plain digits."""
    text = (headers.get("Content-Length") or "").strip()
    return int(text) if re.fullmatch(_NUMBER, text) else None


def version_mark(headers: Message) -> str | None:
    """What tells this version of the file from others: its strong ETag, or else the time of its last change."""
    tag = headers.get("ETag")
    mark = tag if tag is not None and not tag.startswith("W/") else headers.get("Last-Modified")
    fits = mark is not None and mark.isascii() and mark.isprintable() and len(mark) <= _LONGEST_MARK
    return mark if fits else None  # another one could not be sent back


def asked_pause_s(headers: Message, now: datetime) -> float:
    """Seconds for which the server asks to be left alone by `Retry-After`, in either form; 0 if it does not ask.

    Args:
        headers: of the answer.
        now: the present time, with its time zone.
    """
    text = (headers.get("Retry-After") or "").strip()
    if re.fullmatch(_NUMBER, text):
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text)
        return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):  # versions of Python differ in which one
        return 0.0
