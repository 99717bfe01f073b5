"""What made an artefact: versions of the libraries that can change a result, and the commit of the source."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

VERSIONED_DISTRIBUTIONS = ("video-sae", "torch", "transformers", "zarr", "numpy")


def installed_versions() -> dict[str, str | None]:
    """Return the version of Python and of the libraries that can change a result; None if not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in VERSIONED_DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


@functools.cache
def source_commit() -> str | None:
    """Return the git commit of the source tree, with `-dirty` appended if it has changes; None outside a clone."""
    root = Path(__file__).resolve().parents[2]
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:  # an installed copy may lie inside another repository
        return None
    return _git(root, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
