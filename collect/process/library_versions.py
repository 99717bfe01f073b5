"""Whether the libraries that are installed are new enough: compared with the bounds of this program's own metadata.

pip ensures this when it installs, but environments change: something installed later may bring an older library back,
and then the error could be anything.
"""

import importlib.metadata
import re

from collect.errors import UserError

DISTRIBUTION = "video-sae"
_DEVELOPMENT = frozenset({"dev", "test"})
"""Extras whose libraries no stage needs."""


def require_libraries() -> None:
    """Refuse to begin with a library that is older than the lowest version that works.

    Raises:
        UserError: there is one; the message has the command that fixes it.
    """
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # run from its folder, without having been installed
        return
    old = outdated(lower_bounds(requirements))
    if not old:
        return
    listed = ", ".join(f"{name} {installed} is older than {bound}" for name, (installed, bound) in old.items())
    command = " ".join(f"'{name}>={bound}'" for name, (_, bound) in old.items())
    raise UserError(f"{listed}, which {DISTRIBUTION} needs: pip install -U {command}.")


def lower_bounds(requirements: list[str]) -> dict[str, str]:
    """Read the lowest versions out of requirements such as `zarr>=3.1; extra == "archive"`.

    Returns:
        Name -> version. Left out is what has no bound, and what only tests and development need.
    """
    bounds: dict[str, str] = {}
    for requirement in requirements:
        found = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*\(?[^;]*?>=\s*([0-9][0-9.]*)", requirement)
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)""", requirement)
        if found is not None and (extra is None or extra[1] not in _DEVELOPMENT):
            bounds[found[1]] = found[2]
    return bounds


def outdated(bounds: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Compare with what is installed.

    Returns:
        Name -> (installed version, lowest version) of libraries that are too old; those that are not installed are left
        out.
    """
    old: dict[str, tuple[str, str]] = {}
    for name, bound in bounds.items():
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        metadata = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        # Its `version` would parse everything, including descriptions of many pages, at every start.
        found = re.search(r"^Version:\s*(\S+)", metadata, re.MULTILINE)
        installed = found[1] if found else ""
        if installed and _release(installed) < _release(bound):
            old[name] = (installed, bound)
    return old


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version without what follows them (`.dev0`, `rc1`, `+cu130`) and without zeros at their end."""
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
