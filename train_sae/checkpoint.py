"""Checkpoints of a training: one safetensors file each, written atomically, the newest two kept.

A checkpoint holds the whole state (weights, Adam's moments, counters, normalisation, step). The step is also the
loader's cursor and, with the seed, the only source of randomness, so a training that is killed and resumed from its
checkpoint ends with the weights, bit for bit, of one that was not.
"""

import json
from pathlib import Path

import torch

from collect.errors import UserError
from train_sae.normalize import Normalisation
from train_sae.state import TrainState
from train_sae.tensor_file import load_tensors, save_tensors

FOLDER_NAME = "checkpoints"
_KEPT = 2
_REMEDY = "delete it to go on from the checkpoint before it, or from the start"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of an SAE's folder, oldest first."""
    return sorted((folder / FOLDER_NAME).glob("step-*.safetensors"))


def save_checkpoint(folder: Path, state: TrainState, normalisation: Normalisation) -> Path:
    """Write the state after its last step, then remove all but the newest two checkpoints.

    Args:
        folder: the SAE's folder.
        state: what to write.
        normalisation: what the trainer does to its input.
    """
    path = folder / FOLDER_NAME / f"step-{state.step:08d}.safetensors"
    header = json.dumps({"step": state.step, "scale": normalisation.scale})
    save_tensors(path, {**state.tensors(), "mean": normalisation.mean}, {"state": header})
    for old in checkpoints(folder)[:-_KEPT]:
        old.unlink()
    return path


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> tuple[TrainState, Normalisation]:
    """Read a checkpoint.

    Raises:
        UserError: the file is damaged or no checkpoint.
    """
    tensors, metadata = load_tensors(path, _REMEDY, device)
    try:
        header = json.loads(metadata["state"])
        normalisation = Normalisation(scale=float(header["scale"]), mean=tensors["mean"])
        return TrainState.from_tensors(tensors, int(header["step"])), normalisation
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint of this program ({error!r}): {_REMEDY}.") from None
