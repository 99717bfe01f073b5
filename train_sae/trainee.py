"""One SAE in training: its steps, its record, its checkpoints, and the folder that it becomes."""

import dataclasses
import json
import logging
import math
import time
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from collect.artefact import write_atomic
from collect.errors import UserError
from collect.store import ActivationStore
from train_sae.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from train_sae.config import Member
from train_sae.export import save_sae, to_sae
from train_sae.loader import TokenLoader
from train_sae.metrics import Quality, decoder_coherence
from train_sae.normalize import Normalisation
from train_sae.phases import Phases
from train_sae.run_log import MetricsLog
from train_sae.sae import Sae
from train_sae.schedule import learning_rate
from train_sae.state import TrainState, initial_state
from train_sae.step import StepSettings, StepStats, take_step

SUMMARY_NAME = "summary.json"
STAGE = "train"
_THRESHOLD_RATE = 0.01
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

log = logging.getLogger(__name__)


class Trainee:
    """An SAE in training.

    Args:
        member: its settings.
        store: what it is trained on; names the tokens of a batch that breaks it.
        loader: where its batches come from.
        state: weights, optimiser and counters.
        normalisation: what is done to its input.
    """

    def __init__(
        self,
        member: Member,
        store: ActivationStore,
        loader: TokenLoader,
        state: TrainState,
        normalisation: Normalisation,
    ) -> None:
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
        )
        self._window: list[StepStats] = []
        self._lr = 0.0
        self._log: MetricsLog | None = None
        self._phases = Phases()
        self._seconds_before = dict(self._phases.seconds)
        self._began = time.perf_counter()

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.state.step

    @staticmethod
    def is_new(member: Member) -> bool:
        """Whether an SAE has no checkpoint to go on from."""
        return not checkpoints(member.folder)

    def open_log(self, phases: Phases) -> None:
        """Go on with the record of the training.

        Args:
            phases: clocks of the process, which every line reports.
        """
        self._log = MetricsLog(self.member, self.step)
        self._phases, self._seconds_before = phases, dict(phases.seconds)
        self._began = time.perf_counter()

    def close_log(self) -> None:
        """Finish the record."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def take(self, x: Float[Tensor, "token d_in"]) -> None:
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
        assert self._log is not None, "the record is open"
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
            rows = self._loader.rows(self.step - 1)
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
            "videos_per_batch": int(np.unique(self._videos_of(rows)).size),
            "tokens_per_s": len(self._window) * batch_size / (now - self._began),
            **seconds,
        }
        self._log.write(metrics)
        self._window, self._began, self._seconds_before = [], now, dict(self._phases.seconds)
        return {name: f"{metrics[name]:.4g}" for name in ("fvu", "l0", "dead")}

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            UserError: a weight is not finite.
        """
        if not self.state.is_finite():
            raise self._diverged(self.step, "a weight is not finite")
        save_checkpoint(self.member.folder, self.state, self.normalisation, self._loader.cursor(self.step))

    def export(self, store: ActivationStore) -> Sae:
        """The SAE as it is now, on the CPU."""
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
        """What the training was."""
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
            "n_dead_in_training": int(self.state.dead(self.dead_tokens).sum()),
            "dead_tokens": self.dead_tokens,
            "threshold": float(self.state.threshold),
            "scale": self.normalisation.scale,
        }

    def _videos_of(self, rows: np.ndarray) -> np.ndarray:
        starts = np.array([video.row_start for video in self._store.videos])
        return np.searchsorted(starts, rows, side="right") - 1

    def _stop_at_broken_batch(self, step: int, loss: float) -> None:
        """Say where in the data a loss that is not finite comes from."""
        cursor, rows = self._loader.cursor(step), self._loader.rows(step)
        place = f"epoch {cursor.epoch}, pool {cursor.pool}, position {cursor.position}"
        broken = (~self._loader.batch(step).isfinite().all(1)).nonzero().flatten().tolist()
        if broken:
            row = int(rows[broken[0]])
            video, t, line, column = self._store.coords(row, row + 1)[0].tolist()
            token = f"video {self._store.videos[video].video_id}, t {t}, row {line}, column {column}"
            cause = f"because {len(broken)} tokens of its batch are not finite, the first of {token}"
        else:
            cause = f"though its activations are finite, {len(np.unique(self._videos_of(rows)))} videos in the batch"
        raise self._diverged(step, f"the loss is {loss} {cause} ({place})")

    def _diverged(self, step: int, what: str) -> UserError:
        saved = checkpoints(self.member.folder)
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
    measured: Normalisation | None,
    device: torch.device,
) -> Trainee:
    """Start an SAE's training, or go on from its newest checkpoint.

    Args:
        member: its settings.
        store: what it is trained on.
        loader: where its batches come from.
        measured: the normalisation of a training that starts.
        device: where it is trained.

    Raises:
        UserError: the checkpoint is damaged, or is of another order of the tokens.
    """
    saved = checkpoints(member.folder)
    if saved:
        state, normalisation, cursor = load_checkpoint(saved[-1], device)
        if cursor != loader.cursor(state.step):
            raise UserError(
                f"{saved[-1]} was written at {cursor}, where this run is at {loader.cursor(state.step)}: "
                "train with the program that began it, or under another --name."
            )
        log.info("Going on from step %d (%s).", state.step, saved[-1])
        return Trainee(member, store, loader, state, normalisation)
    assert measured is not None, "a training that starts is given its normalisation"
    config, center = member.config, measured.center.float().to(device)
    state = initial_state(center, member.d_sae, config.seed, member.arch, config.sae_options)
    return Trainee(member, store, loader, state, measured)


def finish(
    trainee: Trainee,
    sae: Sae,
    on_train: tuple[Quality, Float[Tensor, " d_sae"]],
    on_held_out: tuple[Quality, Float[Tensor, " d_sae"]] | None,
) -> None:
    """Write the SAE's folder, and the summary last.

    Args:
        trainee: after its last step.
        sae: its SAE.
        on_train: quality and firing rates on train videos.
        on_held_out: the same on held-out ones, where there are any.
    """
    folder = trainee.member.folder
    save_sae(folder, sae.to("cpu"), on_train[1])
    summary = {
        **trainee.summary(),
        **dataclasses.asdict(decoder_coherence(sae.W_dec)),
        "train": _jsonable(on_train[0]),
        "held_out": _jsonable(on_held_out[0]) if on_held_out else None,
    }
    write_atomic(folder / SUMMARY_NAME, json.dumps(summary, indent=2) + "\n")
    shown = (on_held_out or on_train)[0]
    log.info(
        "%s: FVU %.3f, L0 %.1f, %d of %d latents dead, %d dense (%s videos)",
        *(folder, shown.fvu, shown.l0, shown.n_dead, sae.d_sae, shown.n_dense, "held-out" if on_held_out else "train"),
    )


def _jsonable(quality: Quality) -> dict[str, Any]:
    """The numbers of a quality by name; null where one is not defined, since JSON has no NaN."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in dataclasses.asdict(quality).items()
    }
