"""Arguments of the report and of the export.

Only arguments and what can be checked about them alone; nothing here reads a file or imports torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from collect.arguments import require_path, require_wanted
from collect.errors import UserError
from collect.printable import printable


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


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """A folder of all tables of a run, with a card, that `datasets`, pandas, polars and DuckDB open."""

    run: Path
    """Run folder with finished `features`; the tables of `steer` and `profile` are taken along where they are finished.
    """
    to: tuple[Literal["hf"], Path]
    """`hf` and the folder to write: a data set as the Hugging Face hub has them."""
    sae: str | None = None
    """Name of the SAE under `sae/`, or the folder that the other stages were given; may be left out when the run has
    only one."""
    data_licence: str | None = None
    """Licence of your videos and annotations, as the hub writes it, such as cc-by-4.0; that of Perception Test, where
    `video-sae download` fetched it, is known."""

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            UserError: a name leads out of its folder, or is none.
        """
        require_wanted("--sae", self.sae)
        require_path("--to hf", self.to[1])
        if self.data_licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,60}", self.data_licence):
            raise UserError(
                f"--data-licence '{printable(self.data_licence, 80)}' is not written as on the hub: give an identifier "
                "in small letters, such as cc-by-4.0 or other."
            )
