"""Names of what is edited: the number of a latent, `set` for the screen's set, `set: LABEL` for a label's latents."""

from __future__ import annotations

SET = "set"


def set_name(label: str) -> str:
    """Name of the set of a label's latents."""
    return f"{SET}: {label}"


def is_set(name: str) -> bool:
    """Whether a name stands for several latents that are edited together."""
    return name == SET or name.startswith(f"{SET}: ")


def set_label(name: str) -> str:
    """The label of a label's set; empty for any other name."""
    return name.removeprefix(f"{SET}: ") if name.startswith(f"{SET}: ") else ""
