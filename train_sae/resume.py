"""Where the training of an SAE begins: at its first step, or at the newest checkpoint that every process has."""

import logging

import torch

from collect.errors import UserError
from collect.reading import ActivationStore
from train_sae.batches.loader import TokenLoader
from train_sae.batches.normalisation import Normalisation
from train_sae.checkpoint import checkpoint_path, checkpoints, load_checkpoint, part_name, step_of
from train_sae.config import SaeConfig
from train_sae.processes.group import Group
from train_sae.processes.parallel import shard_of
from train_sae.settings import SaeSettings
from train_sae.step.architectures import trained_names
from train_sae.step.state import TrainState, initial_state
from train_sae.trainer import SaeTrainer

log = logging.getLogger(__name__)


def newest_step(sae: SaeConfig, group: Group, device: torch.device) -> int:
    """After how many steps the newest checkpoint was written that every process has; 0 if there is none.

    A process that was killed while others wrote has one checkpoint fewer; the others still have the one before.
    """
    saved = checkpoints(sae.folder, part_name(group))
    newest = step_of(saved[-1]) if saved else 0
    if group.n_shards == 1:
        return newest
    return min(int(step) for step in group.gather(torch.tensor([newest], device=device)))


def begin_or_resume(
    settings: SaeSettings,
    store: ActivationStore,
    loader: TokenLoader,
    step: int,
    measured: Normalisation | None,
    device: torch.device,
) -> SaeTrainer:
    """Start an SAE's training, or continue from a checkpoint.

    Args:
        settings: how it is trained.
        store: what it is trained on.
        loader: where its batches come from.
        step: from `newest_step`.
        measured: the normalisation of a training that starts.
        device: where it is trained.

    Raises:
        UserError: the checkpoint is damaged, or belongs to another order of the tokens.
    """
    group, arch, options = settings.step.group, settings.step.arch, settings.step.options
    if step:
        path = checkpoint_path(settings.folder, step, part_name(group))
        state, normalisation, cursor = load_checkpoint(path, device)
        if cursor != loader.cursor(state.step):
            raise UserError(
                f"{path} was written at {cursor}, where this run is at {loader.cursor(state.step)}: "
                "train with the program that began it, or under another --name."
            )
        log.info("Going on from step %d (%s).", state.step, path)
        return SaeTrainer(settings, store, loader, state, normalisation)
    assert measured is not None, "a training that starts is given its normalisation"
    # The dictionary may be too large for the device until it is divided.
    center = measured.center.float().to("cpu" if group.n_shards > 1 else device)
    state = initial_state(center, settings.d_sae, settings.step.seed, arch, options)
    if group.n_shards > 1:
        weights = shard_of(state.weights, group, device)
        state = TrainState(weights, trained_names(arch, weights), options.ema_decay is not None)
    return SaeTrainer(settings, store, loader, state, measured)
