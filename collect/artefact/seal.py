"""Checksums that a file contains itself, so that a changed bit anywhere in it is found when it is read.

Binary files (tables, pictures) have room for a line of our own text. `BLANK` goes there while the file is made,
and `seal` puts the SHA-256 of the whole, blank included, in its place: it covers header, content and footer, and other
programs can still read the file. JSON objects get a field with the hash of all their other fields.

A seal detects damage, not forgery: anyone who writes a file on purpose can seal it.
"""

import hashlib
import json
import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

MARK = b"video-sae sha256 "
BLANK = MARK + b"0" * 64
CHECKSUM = "checksum"
"""Field of a JSON object that holds the hash of the others."""

_SEAL = re.compile(re.escape(MARK) + rb"([0-9a-f]{64})")

Condition = Literal["whole", "unsealed", "changed"]


def seal(data: bytes) -> bytes:
    """Replace the last `BLANK` in a file's content by the content's hash."""
    start = data.rfind(BLANK)
    assert start >= 0, "the file has a place for its seal"
    return data[:start] + MARK + hashlib.sha256(data).hexdigest().encode() + data[start + len(BLANK) :]


def condition(data: bytes) -> Condition:
    """Whether a file's content is what was sealed, has no seal, or was changed after it was sealed."""
    last = deque(_SEAL.finditer(data), maxlen=1)
    if not last:
        return "unsealed"
    found = last[0]
    blank = data[: found.start()] + BLANK + data[found.end() :]
    return "whole" if hashlib.sha256(blank).hexdigest().encode() == found[1] else "changed"


def seal_object(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its checksum as last field."""
    fields = {name: value for name, value in content.items() if name != CHECKSUM}
    return {**fields, CHECKSUM: object_hash(fields)}


def object_condition(content: Mapping[str, Any]) -> Condition:
    """As `condition`, of a JSON object as it was read."""
    if CHECKSUM not in content:
        return "unsealed"
    fields = {name: value for name, value in content.items() if name != CHECKSUM}
    try:
        return "whole" if object_hash(fields) == content[CHECKSUM] else "changed"
    except RecursionError:  # nothing that was sealed is nested so deep
        return "changed"


def object_hash(fields: Mapping[str, Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of an object, written with sorted names and without spaces."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
