"""Arguments of `browse`.

Only arguments and what can be checked about them alone; nothing here reads a file or imports the server's libraries.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from collect.arguments import require_path, require_wanted
from collect.errors import UserError

MOST_CACHE_GB = 1e9
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class BrowseConfig:
    """A local page to explore what each latent sees and does; with --export, the same page as files."""

    run: Path
    """Run folder; it may still be being written."""
    sae: str | None = None
    """Name of one SAE of the run, or of its folder below `features/`; all of them if not given."""
    data: Path | None = None
    """Folder of the videos and annotations, if they are not where the run took them from."""
    export: Path | None = None
    """Write the page, its shards and its media to this folder instead of serving them; it opens without a server."""
    media: bool = True
    """Whether an export has clips and stills. A server makes them when they are first looked at."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own makes the page ask for a token, which is in the URL."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    cache_gb: float = 4.0
    """Most gigabytes of clips and stills that are kept in the run's `media-cache/`."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: one is out of its range, or names nothing.
        """
        require_wanted("--sae", self.sae)
        if self.export is not None:
            require_path("--export", self.export)
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port {self.port} is no port: give a number from 0 to 65535.")
        if not 0 < self.cache_gb <= MOST_CACHE_GB:
            raise UserError(
                f"--cache-gb {self.cache_gb:g} is out of range: give more than 0 and at most {MOST_CACHE_GB:g}."
            )
        if not self.host or any(character.isspace() or character in "/?#@" for character in self.host):
            raise UserError(f"--host {self.host!r} is no address: give one of this machine, such as 127.0.0.1.")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the page."""
        return self.host in LOOPBACK
