"""Names of shards: paths whose parts are ids and labels of any text, as file names that need no escaping in a URL.

Letters, digits, `.`, `_` and `-` stand for themselves; every other byte of the UTF-8 text is `~XX` in upper-case
hexadecimal digits. A part that would be too long for a file system is cut, and ends in `~h` and a hash of the whole.
"""

from __future__ import annotations

import hashlib
import re

BASELINE_SUFFIX = "~baseline"
"""Follows the encoded name of an SAE: its baseline. No encoded text ends in it, as its digits are lower-case."""
MOST_CHARACTERS = 160
_KEPT = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_SHARD = re.compile(r"(?:[A-Za-z0-9._~-]+/)*[A-Za-z0-9._~-]+")


def part_of(text: str) -> str:
    """One part of a shard's name for an id or a label; different texts give different parts."""
    data = text.encode("utf-8", "surrogatepass")
    part = "".join(chr(byte) if byte in _KEPT else f"~{byte:02X}" for byte in data)
    if part.startswith("."):  # hidden, or the folder above
        part = f"~2E{part[1:]}"
    if len(part) > MOST_CHARACTERS:
        return f"{part[:MOST_CHARACTERS]}~h{hashlib.sha256(data).hexdigest()[:16]}"
    return part or "~"


def is_shard_name(text: str) -> bool:
    """Whether a text could be the name of a shard: relative, without `.` and `..`, of the allowed characters only."""
    return bool(_SHARD.fullmatch(text)) and not any(part.startswith(".") for part in text.split("/"))
