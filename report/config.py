"""Arguments of the report.

Only arguments and what can be checked about them alone; nothing here reads a file or imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from collect.arguments import require_wanted


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """A page that shows what the run found."""

    run: Path
    """Run folder with the finished stages."""
    sae: str | None = None
    """Name of the SAE under `sae/`, or the folder that the other stages were given; may be left out when the run has
    only one."""

    def __post_init__(self) -> None:
        """Check the name.

        Raises:
            UserError: it leads out of `sae/`.
        """
        require_wanted("--sae", self.sae)
