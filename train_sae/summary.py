"""`summary.json` of a training: written last, read by whoever compares SAEs or reports on one.

It holds the hashes of the folder's files, of `cfg.json` too, for which SAELens's format leaves no room: so a changed
setting is found.
"""

from pathlib import Path
from typing import Any

from collect.artefact.folder import file_hash, read_object
from collect.artefact.json_fields import Fields
from collect.errors import UserError
from collect.printable import printable

SUMMARY_NAME = "summary.json"
_TEXTS = ("site", "architecture")
_COUNTS = ("d_in", "d_sae", "k", "n_steps", "n_training_tokens", "n_train_tokens")
_NUMBERS = ("lr", "decoder_coherence_mean")
_QUALITY_COUNTS = ("n_tokens", "n_dead", "n_dense")
_QUALITY_NUMBERS = ("fvu", "l0", "cosine", "relative_bias")


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the summary of a finished training.

    Returns:
        Its content; of `train` and `held_out`, which may be None, the numbers that others read.

    Raises:
        UserError: there is none, it is damaged, or a figure is missing or of another kind.
    """
    remedy = f"delete {printable(folder, 4096)} and train that SAE again"
    content = read_object(folder / SUMMARY_NAME, remedy)
    fields = Fields(content, printable(folder / SUMMARY_NAME, 4096), remedy)
    for name in _TEXTS:
        fields.text(name)
    for name in _COUNTS:
        if fields.has(name):
            fields.integer(name)
    for name in _NUMBERS:
        if fields.has(name):
            fields.number(name)
    train, held_out = _quality(fields.child("train")), None
    if fields.has("held_out"):
        held_out = _quality(fields.child("held_out"))
    return {**content, "train": train, "held_out": held_out}


def _quality(fields: Fields) -> dict[str, Any]:
    """The numbers of a quality that others read; None where one is not defined."""
    counts = {name: fields.integer(name) for name in _QUALITY_COUNTS}
    return {**counts, **{name: fields.number(name) if fields.has(name) else None for name in _QUALITY_NUMBERS}}


def check_cfg(cfg: Path) -> None:
    """Check that a `cfg.json` is what the training beside it wrote; one without a summary is taken as it is.

    Raises:
        UserError: it was changed after the training, or the summary is damaged.
    """
    path = cfg.parent / SUMMARY_NAME
    if not path.exists():
        return
    remedy = f"put the old {cfg.name} back, or delete {printable(path, 4096)} if the change was meant"
    files: Any = read_object(path, remedy).get("files")
    entry: Any = files.get(cfg.name) if isinstance(files, dict) else None
    if isinstance(entry, dict) and entry.get("sha256") != file_hash(cfg):
        raise UserError(f"{printable(cfg, 4096)} was changed after its SAE was trained: {remedy}.")
