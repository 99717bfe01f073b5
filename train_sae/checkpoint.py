"""Checkpoints of a training: one safetensors file each, written atomically, the newest two kept.

A checkpoint holds the whole state (weights, Adam's moments, counters, normalisation, step, place in the data). The
step decides the learning rate and, with the seed, everything random, so a training that is killed and resumed from its
checkpoint ends with the weights, bit for bit, of one that was not. The place in the data follows from the step too; it
is kept so that a resumed run can notice that it would continue at another place.
"""

import json
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from collect.artefact.json_fields import Fields
from collect.artefact.json_file import parse_json
from collect.errors import UserError
from collect.printable import printable
from collect.process.device import mark_work
from train_sae.batches.normalisation import Normalisation
from train_sae.batches.order import Cursor
from train_sae.options import NormalizeActivations
from train_sae.processes.group import Group
from train_sae.step.state import TrainState
from train_sae.tensor_file import load_tensors, save_tensors

FOLDER_NAME = "checkpoints"
_KEPT = 2
_NAME = re.compile(r"step-\d{8,}\.safetensors", re.ASCII)
_REMEDY = "delete it to go on from the checkpoint before it, or from the start"


def checkpoints(folder: Path, part: str = "") -> list[Path]:
    """The checkpoints of an SAE's folder, oldest first.

    Args:
        folder: the SAE's folder.
        part: which process's, if each has its own share of the latents.
    """
    return _in_order(folder / FOLDER_NAME / part)


def checkpoint_path(folder: Path, step: int, part: str = "") -> Path:
    """The checkpoint that is written after this many steps; arguments as for `checkpoints`."""
    return folder / FOLDER_NAME / part / f"step-{step:08d}.safetensors"


def step_of(path: Path) -> int:
    """After how many steps a checkpoint was written."""
    return int(path.stem.removeprefix("step-"))


def part_name(group: Group) -> str:
    """Where under the checkpoints a process keeps its own: empty if all processes have the same state."""
    return f"latents-{group.rank}-of-{group.n_shards}" if group.n_shards > 1 else ""


def save_checkpoint(
    folder: Path, state: TrainState, normalisation: Normalisation, cursor: Cursor, part: str = ""
) -> Path:
    """Write the state after its last step, then remove all but the newest two checkpoints.

    Args:
        folder: the SAE's folder.
        state: what to write.
        normalisation: what the trainer does to its input.
        cursor: where in the data the next step begins.
        part: which process's share of the latents the state is; see `checkpoints`.
    """
    path = checkpoint_path(folder, state.step, part)
    _write(path, _tensors(state, normalisation), _header(state, normalisation, cursor))
    return path


class CheckpointWriter:
    """Writes the checkpoints of one training, those of a GPU's state while the training goes on.

    Such a state is copied into pinned memory first, behind the step that made it; a thread writes that. There is memory
    for one such copy, so a checkpoint waits until the one before it is written.

    Args:
        folder: the SAE's folder.
        part: see `checkpoints`.
        in_background: whether to copy and go on.
    """

    def __init__(self, folder: Path, part: str, *, in_background: bool) -> None:
        self._folder, self._part = folder, part
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if in_background else None
        self._copies: dict[str, Tensor] = {}
        self._pending: Future[None] | None = None

    def save(self, state: TrainState, normalisation: Normalisation, cursor: Cursor) -> None:
        """Write the state after its last step; arguments as for `save_checkpoint`."""
        if self._executor is None:
            save_checkpoint(self._folder, state, normalisation, cursor, self._part)
            return
        self.wait()
        for name, tensor in _tensors(state, normalisation).items():
            if name not in self._copies:
                self._copies[name] = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            self._copies[name].copy_(tensor, non_blocking=True)
        copied = mark_work(state.threshold.device)
        path = checkpoint_path(self._folder, state.step, self._part)
        header = _header(state, normalisation, cursor)
        self._pending = self._executor.submit(_write, path, self._copies, header, copied)

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk; raises what writing it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait, and let go of the memory."""
        self.wait()
        self._copies = {}
        if self._executor is not None:
            self._executor.shutdown()


def _tensors(state: TrainState, normalisation: Normalisation) -> dict[str, Tensor]:
    return {**state.tensors(), **normalisation.tensors()}


def _header(state: TrainState, normalisation: Normalisation, cursor: Cursor) -> dict[str, str]:
    return {"state": json.dumps({"step": state.step, "normalisation": normalisation.kind, "cursor": cursor})}


def _write(
    path: Path, tensors: Mapping[str, Tensor], header: dict[str, str], copied: torch.cuda.Event | None = None
) -> None:
    """Write a checkpoint, once its tensors are there, and remove all but the newest two."""
    if copied is not None:
        copied.synchronize()
    save_tensors(path, dict(tensors), header)
    for old in _in_order(path.parent)[:-_KEPT]:
        old.unlink()


def _in_order(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name))


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> tuple[TrainState, Normalisation, Cursor]:
    """Read a checkpoint: the state, the normalisation, and where in the data the next step begins.

    Raises:
        UserError: the file is damaged or no checkpoint.
    """
    tensors, metadata = load_tensors(path, _REMEDY, device)
    shown = printable(path, 4096)
    try:
        header = Fields(parse_json(metadata["state"], shown, _REMEDY), shown, _REMEDY)
        step, cursor = header.integer("step"), header.integers("cursor", n=len(Cursor._fields))
        kind = header.text("normalisation")
        if kind not in get_args(NormalizeActivations):
            raise header.error("normalisation", "a way to normalise activations")
        state = TrainState.from_tensors(tensors, step)
        _check_shapes(state)
        return state, Normalisation.from_tensors(tensors, kind), Cursor(*cursor)
    except (KeyError, RuntimeError, TypeError, IndexError) as error:
        reason = printable(repr(error), 160)
        raise UserError(f"{shown} is not a checkpoint of this program ({reason}): {_REMEDY}.") from None


def _check_shapes(state: TrainState) -> None:
    """Check that the tensors fit together.

    Raises:
        KeyError: one does not.
    """
    weights = state.weights
    d_sae, d_in = weights.dec.shape
    expected = dict.fromkeys(("b_enc", "threshold", "b_mag", "r_mag"), (d_sae,)) | {"enc": (d_sae, d_in)}
    expected |= {"dec": (d_sae, d_in), "b_dec": (d_in,)}
    for name, tensor in weights.tensors().items():
        adam = state.optimizer.state.get(tensor, {})
        averaged = [] if state.average is None or name not in state.average else [state.average[name]]
        for like in (tensor, *(adam[key] for key in ("exp_avg", "exp_avg_sq") if key in adam), *averaged):
            if tuple(like.shape) != expected[name]:
                raise KeyError(f"{name} of shape {tuple(like.shape)}")
    if tuple(state.tokens_since_fired.shape) != (d_sae,) or state.threshold.ndim:
        raise KeyError("counters of another shape")
