"""Arguments of `video-sae download`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from collect.arguments import require_path
from collect.errors import UserError
from collect.printable import printable

Split = Literal["sample", "train", "valid", "test"]
Part = Literal["videos", "annotations", "mc_question", "cut_frames"]

BASE_URL = "https://storage.googleapis.com/dm-perception-test"
"""Where Perception Test publishes its files."""
LONGEST_TIMEOUT_S = 3600.0
MOST_ATTEMPTS = 1000


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """Fetch, check and unpack Perception Test: resumable, and nothing is unpacked outside the folder."""

    split: tuple[Split, ...] = ("sample",)
    """Which videos: `sample` (0.2 GB), `train` (27 GB), `valid` (70 GB) or `test` (42 GB, without answers)."""
    parts: tuple[Part, ...] = ("videos", "annotations", "cut_frames")
    """Which parts of them; `mc_question`, the multiple-choice questions alone, is a small substitute for
    `annotations`."""
    out: Path | None = None
    """Folder to fill, for `--data` of the other commands; by default `data/` and the names of the splits."""
    base_url: str = BASE_URL
    """A mirror with the same paths, over http or https."""
    keep_archives: bool = False
    """Keep the .zip files in the folder `archives` after unpacking them."""
    timeout_s: float = 60.0
    """Close a connection and open a new one after this many seconds without an answer."""
    attempts: int = 8
    """Give up after this many connections in a row that bring nothing new."""

    def __post_init__(self) -> None:
        for name in ("split", "parts"):
            value = getattr(self, name)
            if not value or len(set(value)) < len(value):
                raise UserError(f"--{name} must name one or several different ones.")
        if not self.base_url.startswith(("http://", "https://")) or not _is_address(self.base_url):
            raise UserError(
                f"--base-url must begin with https:// or http:// and the name of a server, unlike "
                f"{printable(self.base_url)}."
            )
        if not 0 < self.timeout_s <= LONGEST_TIMEOUT_S or not 1 <= self.attempts <= MOST_ATTEMPTS:
            raise UserError(
                f"--timeout-s must be above 0 and at most {LONGEST_TIMEOUT_S:,.0f}, and --attempts at least 1 and at "
                f"most {MOST_ATTEMPTS:,}."
            )
        if self.out is not None:
            require_path("--out", self.out)

    @property
    def folder(self) -> Path:
        """The folder to fill."""
        return self.out or Path("data") / "-".join(self.split)


def _is_address(url: str) -> bool:
    """Whether an address names a server and nothing that a request cannot carry: blanks, controls, a user, a query."""
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    is_plain = url.isascii() and url.isprintable() and not set(url) & set(" ?#@")
    return is_plain and has_port and bool(parts.hostname)
