"""One SAE in training: its steps, its record, its checkpoints, and the folder that it becomes."""

import dataclasses
import json
import logging
import time
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from collect.artefact.stage import write_summary
from collect.errors import UserError
from collect.reading import ActivationStore
from train_sae.batches.loader import TokenLoader
from train_sae.batches.normalisation import Normalisation
from train_sae.checkpoint import checkpoint_path, checkpoints, load_checkpoint, save_checkpoint, step_of
from train_sae.config import Member
from train_sae.lens.config import CFG_NAME
from train_sae.lens.export import SPARSITY_NAME, save_sae, to_sae
from train_sae.lens.folding import WEIGHTS_NAME
from train_sae.phases import Phases
from train_sae.processes.group import SOLO, Group
from train_sae.processes.parallel import shard_of
from train_sae.quality.metrics import Quality, decoder_coherence
from train_sae.run_log import MetricsLog
from train_sae.sae import Sae
from train_sae.step.architectures import trained_names
from train_sae.step.fastest import StepSettings, StepStats, take_step
from train_sae.step.schedule import learning_rate
from train_sae.step.state import TrainState, initial_state

STAGE = "train"
_THRESHOLD_RATE = 0.01
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

log = logging.getLogger(__name__)


class SaeTrainer:
    """An SAE in training.

    Args:
        member: its settings.
        store: what it is trained on; names the tokens of a batch that breaks it.
        loader: where its batches come from.
        state: weights, optimiser and counters.
        normalisation: what is done to its input.
        group: the processes that train it together.
    """

    def __init__(
        self,
        member: Member,
        store: ActivationStore,
        loader: TokenLoader,
        state: TrainState,
        normalisation: Normalisation,
        group: Group = SOLO,
    ) -> None:
        self._group = group
        self.member, self.name = member, member.name
        self.state = state
        self.normalisation = normalisation.to(state.weights.b_dec.device)
        self._store, self._loader = store, loader
        config = member.config
        self.n_steps = max(1, round(config.epochs * loader.n_tokens / config.batch_size))
        self.dead_tokens = member.dead_after(loader.n_tokens)
        self._settings = StepSettings(
            arch=member.arch,
            k=member.k,
            dead_tokens=self.dead_tokens,
            aux_k=max(1, state.weights.b_dec.shape[0] // 2),
            precision=_PRECISIONS[config.dtype],
            # Short trainings forget faster: the first steps, with other activations, are to be forgotten by the end.
            threshold_rate=min(1.0, max(_THRESHOLD_RATE, 20 / self.n_steps)),
            seed=config.seed,
            options=config.sae_options,
            group=group,
        )
        self._window: list[StepStats] = []
        self._lr, self._n_dead = 0.0, 0
        self._log: MetricsLog | None = None
        self._phases = Phases()
        self._seconds_before = dict(self._phases.seconds)
        self._began = time.perf_counter()

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.state.step

    def open_log(self, phases: Phases) -> None:
        """Go on with the record of the training.

        Args:
            phases: clocks of the process, which every line reports.
        """
        self._log = MetricsLog(self.member, self.step) if self._group.is_first else None
        self._phases, self._seconds_before = phases, dict(phases.seconds)
        self._began = time.perf_counter()

    def close_log(self) -> None:
        """Finish the record."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def train_on(self, x: Float[Tensor, "token d_in"]) -> None:
        """Take one step.

        Args:
            x: raw activations of any floating type, on the state's device; not changed.
        """
        self._lr = learning_rate(self.step, self.n_steps, self.member.peak_lr)
        self._window.append(take_step(self.state, self.normalisation.apply(x), self._settings, self._lr))

    def write_log(self) -> dict[str, str]:
        """Reduce the steps since the last line to one line, and return what a progress bar shows of it.

        The only place where the host waits for the device.

        Raises:
            UserError: a loss is not finite.
        """
        with self._phases("log"):
            columns = {
                name: torch.stack([getattr(stats, name) for stats in self._window]).cpu().double()
                for name in StepStats._fields
            }
            broken = (~columns["mse"].isfinite()).nonzero()
            if broken.numel():
                self._stop_at_broken_batch(
                    self.step - len(self._window) + int(broken[0]), float(columns["mse"][broken[0]])
                )
            rows = self._all_rows(self.step - 1)
        now, batch_size = time.perf_counter(), self.member.config.batch_size
        seconds = {f"{phase}_s": total - self._seconds_before[phase] for phase, total in self._phases.seconds.items()}
        metrics = {
            "tokens": self.step * batch_size,
            "step": self.step,
            "mse": float(columns["mse"].mean()),
            "aux": float(columns["aux"].mean()),
            "sparsity": float(columns["sparsity"].mean()),
            "fvu": float(columns["mse"].sum() / columns["variance"].sum()),
            "l0": float(columns["l0"].mean()),
            "dead": float(columns["n_dead"][-1]),
            "threshold": float(columns["threshold"][-1]),
            "lr": self._lr,
            "videos_per_batch": self._n_videos(rows),
            "tokens_per_s": len(self._window) * batch_size / (now - self._began),
            **seconds,
        }
        if self._log is not None:
            self._log.write(metrics)
        self._window, self._began, self._seconds_before = [], now, dict(self._phases.seconds)
        return {name: f"{metrics[name]:.4g}" for name in ("fvu", "l0", "dead")}

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            UserError: a weight is not finite, in whichever process.
        """
        if self._group.is_anywhere(not self.state.is_finite()):
            raise self._diverged(self.step, "a weight is not finite")
        if self._group.is_first or self._group.n_shards > 1:
            cursor, part = self._loader.cursor(self.step), part_name(self._group)
            save_checkpoint(self.member.folder, self.state, self.normalisation, cursor, part)

    def export(self, store: ActivationStore) -> Sae:
        """This process's share of the SAE as it is now, on the CPU: all of it where the latents are not shared out.

        Every process of the group has to ask for it.
        """
        self._n_dead = int(self._group.sum_shards(self.state.dead(self.dead_tokens).sum()))
        return to_sae(
            self.state.exported,
            arch=self.member.arch,
            k=self.member.k,
            normalisation=self.normalisation,
            threshold=float(self.state.threshold),
            metadata=self._metadata(store),
            options=self._settings.options,
        )

    def summary(self) -> dict[str, Any]:
        """What the training was, up to `export`."""
        return {
            "name": self.name,
            "site": self.member.config.site,
            "architecture": self.member.arch,
            "d_in": self.state.weights.b_dec.shape[0],
            "d_sae": self.member.d_sae,
            "k": self.member.k,
            "lr": self.member.peak_lr,
            "n_steps": self.step,
            "n_training_tokens": self.step * self.member.config.batch_size,
            "n_train_tokens": self._loader.n_tokens,
            "n_dead_in_training": self._n_dead,
            "dead_tokens": self.dead_tokens,
            "threshold": float(self.state.threshold),
            "scale": self.normalisation.scale,
        }

    def _all_rows(self, step: int) -> np.ndarray:
        """Which rows of the store the batch of a step holds, over all processes; every one of them has to ask."""
        return self._of_all_lanes(torch.from_numpy(self._loader.rows(step))).numpy()

    def _of_all_lanes(self, values: Shaped[Tensor, " token"]) -> Shaped[Tensor, " batch"]:
        """One value per token of a batch, over all processes that share out the tokens; on the CPU."""
        if self._group.n_data == 1:
            return values.cpu()
        return torch.cat(self._group.gather(values.to(self.state.threshold.device)))

    def _n_videos(self, rows: np.ndarray) -> int:
        starts = np.array([video.row_start for video in self._store.videos])
        return np.unique(np.searchsorted(starts, rows, side="right")).size

    def _stop_at_broken_batch(self, step: int, loss: float) -> None:
        """Say where in the data a loss that is not finite comes from.

        The loss is a mean over all processes, so that all of them come here, and all say the same.
        """
        cursor, rows = self._loader.cursor(step), self._all_rows(step)
        place = f"epoch {cursor.epoch}, pool {cursor.pool}, position {cursor.position}"
        is_broken = ~self._loader.batch(step).isfinite().all(1)
        broken = rows[self._of_all_lanes(is_broken.to(torch.uint8)).bool().numpy()]
        if broken.size:
            video, t, line, column = self._store.coords(int(broken[0]), int(broken[0]) + 1)[0].tolist()
            token = f"video {self._store.videos[video].video_id}, t {t}, row {line}, column {column}"
            cause = f"because {broken.size} tokens of its batch are not finite, the first of {token}"
        else:
            cause = f"though its activations are finite, {self._n_videos(rows)} videos in the batch"
        raise self._diverged(step, f"the loss is {loss} {cause} ({place})")

    def _diverged(self, step: int, what: str) -> UserError:
        saved = checkpoints(self.member.folder, part_name(self._group))
        good = f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint was written before"
        return UserError(
            f"Training {self.name} stopped at step {step}: {what}; {good}. Train again with a lower --lr under another "
            "--name, or collect the activations again with --dtype float32 if they overflowed."
        )

    def _metadata(self, store: ActivationStore) -> dict[str, Any]:
        """What the SAELens folder says about the SAE; `model_name` and `hook_name` are SAELens's own names."""
        arguments = json.loads(json.dumps(self.member.arguments(), default=str))
        training = {name: value for name, value in arguments.items() if name not in ("run", "wandb")}
        return {
            "model_name": store.model.get("name"),
            "hook_name": self.member.config.site,
            "model_fingerprint": store.model.get("fingerprint"),
            "store_fingerprint": store.fingerprint,
            "n_videos": len(store.videos),
            "n_train_tokens": self._loader.n_tokens,
            "n_training_tokens": self.step * self.member.config.batch_size,
            "training": {**training, "lr": self.member.peak_lr, "dead_tokens": self.dead_tokens},
        }


def begin_or_resume(
    member: Member,
    store: ActivationStore,
    loader: TokenLoader,
    step: int,
    measured: Normalisation | None,
    device: torch.device,
    group: Group = SOLO,
) -> SaeTrainer:
    """Start an SAE's training, or go on from a checkpoint.

    Args:
        member: its settings.
        store: what it is trained on.
        loader: where its batches come from.
        step: from `newest_step`.
        measured: the normalisation of a training that starts.
        device: where it is trained.
        group: the processes that train it together.

    Raises:
        UserError: the checkpoint is damaged, or is of another order of the tokens.
    """
    if step:
        path = checkpoint_path(member.folder, step, part_name(group))
        state, normalisation, cursor = load_checkpoint(path, device)
        if cursor != loader.cursor(state.step):
            raise UserError(
                f"{path} was written at {cursor}, where this run is at {loader.cursor(state.step)}: "
                "train with the program that began it, or under another --name."
            )
        log.info("Going on from step %d (%s).", state.step, path)
        return SaeTrainer(member, store, loader, state, normalisation, group)
    assert measured is not None, "a training that starts is given its normalisation"
    config, options = member.config, member.config.sae_options
    # The dictionary may be too large for the device until it is shared out.
    center = measured.center.float().to("cpu" if group.n_shards > 1 else device)
    state = initial_state(center, member.d_sae, config.seed, member.arch, options)
    if group.n_shards > 1:
        weights = shard_of(state.weights, group, device)
        state = TrainState(weights, trained_names(member.arch, weights), options.ema_decay is not None)
    return SaeTrainer(member, store, loader, state, measured, group)


def newest_step(member: Member, group: Group, device: torch.device) -> int:
    """After how many steps the newest checkpoint was written that every process has; 0 if there is none.

    A process that was killed while others wrote has one checkpoint less than they, who keep the one before.
    """
    saved = checkpoints(member.folder, part_name(group))
    newest = step_of(saved[-1]) if saved else 0
    if group.n_shards == 1:
        return newest
    return min(int(step) for step in group.gather(torch.tensor([newest], device=device)))


def part_name(group: Group) -> str:
    """Where under the checkpoints a process keeps its own: empty where all processes have the same state."""
    return f"latents-{group.rank}-of-{group.n_shards}" if group.n_shards > 1 else ""


def finish(
    trainer: SaeTrainer,
    sae: Sae,
    on_train: tuple[Quality, Float[Tensor, " d_sae"]],
    on_held_out: tuple[Quality, Float[Tensor, " d_sae"]] | None,
) -> None:
    """Write the SAE's folder, and the summary last.

    Args:
        trainer: after its last step.
        sae: its SAE.
        on_train: quality and firing rates on train videos.
        on_held_out: the same on held-out ones, where there are any.
    """
    folder = trainer.member.folder
    save_sae(folder, sae.to("cpu"), on_train[1])
    summary = {
        **trainer.summary(),
        **dataclasses.asdict(decoder_coherence(sae.W_dec)),
        "train": on_train[0].to_json(),
        "held_out": on_held_out[0].to_json() if on_held_out else None,
    }
    write_summary(folder, summary, (CFG_NAME, WEIGHTS_NAME, SPARSITY_NAME))
    shown = (on_held_out or on_train)[0]
    log.info(
        "%s: FVU %.3f, L0 %.1f, %d of %d latents dead, %d dense (%s videos)",
        *(folder, shown.fvu, shown.l0, shown.n_dead, sae.d_sae, shown.n_dense, "held-out" if on_held_out else "train"),
    )
