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
from train_sae.checkpoint import CheckpointWriter, checkpoints, part_name
from train_sae.lens.config import CFG_NAME
from train_sae.lens.export import SPARSITY_NAME, save_sae, to_sae
from train_sae.lens.folding import WEIGHTS_NAME
from train_sae.phases import Phases
from train_sae.quality.metrics import Quality, decoder_coherence
from train_sae.run_log import MetricsLog
from train_sae.sae import Sae
from train_sae.settings import SaeSettings
from train_sae.step.fastest import StepStats, take_step
from train_sae.step.schedule import learning_rate
from train_sae.step.state import TrainState

STAGE = "train"

log = logging.getLogger(__name__)


class SaeTrainer:
    """An SAE in training.

    Args:
        settings: how it is trained, and by which processes.
        store: what it is trained on; used to name the tokens of a batch that breaks it.
        loader: where its batches come from.
        state: weights, optimiser and counters.
        normalisation: what is done to its input.
    """

    def __init__(
        self,
        settings: SaeSettings,
        store: ActivationStore,
        loader: TokenLoader,
        state: TrainState,
        normalisation: Normalisation,
    ) -> None:
        self.settings, self.name = settings, settings.name
        self._group = settings.step.group
        self.state = state
        self.normalisation = normalisation.to(state.weights.b_dec.device)
        self._store, self._loader = store, loader
        self._window: list[StepStats] = []
        self._lr, self._n_dead = 0.0, 0
        self._log: MetricsLog | None = None
        on_gpu = state.weights.b_dec.device.type == "cuda"
        self._writer = CheckpointWriter(settings.folder, part_name(self._group), in_background=on_gpu)
        self._phases = Phases()
        self._seconds_before = dict(self._phases.seconds)
        self._began = time.perf_counter()

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.state.step

    def open_log(self, phases: Phases) -> None:
        """Continue the record of the training.

        Args:
            phases: clocks of the process; every line reports them.
        """
        self._log = MetricsLog(self.settings, self.step) if self._group.is_first else None
        self._phases, self._seconds_before = phases, dict(phases.seconds)
        self._began = time.perf_counter()

    def close(self) -> None:
        """Finish the record and the last checkpoint."""
        self._writer.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def train_on(self, x: Float[Tensor, "token d_in"]) -> None:
        """Take one step.

        Args:
            x: raw activations of any floating type, on the state's device; not changed.
        """
        self._lr = learning_rate(self.step, self.settings.n_steps, self.settings.lr)
        self._window.append(take_step(self.state, self.normalisation.apply(x), self.settings.step, self._lr))

    def write_log(self) -> dict[str, str]:
        """Summarise the steps since the last line in one line, and return the part that a progress bar shows.

        The host waits for the device.

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
        now, batch_size = time.perf_counter(), self.settings.batch_size
        seconds = {f"{phase}_s": total - self._seconds_before[phase] for phase, total in self._phases.seconds.items()}
        metrics = {
            "tokens": self.step * batch_size,
            "step": self.step,
            "n_steps": len(self._window),
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
        """Write a checkpoint; from a GPU, it is on the disk by the next one or `close`.

        Raises:
            UserError: a weight is not finite, in whichever process.
        """
        if self._group.is_anywhere(not self.state.is_finite()):
            raise self._diverged(self.step, "a weight is not finite")
        if self._group.is_first or self._group.n_shards > 1:
            self._writer.save(self.state, self.normalisation, self._loader.cursor(self.step))

    def export(self, store: ActivationStore) -> Sae:
        """This process's share of the SAE as it is now, on the CPU: all of it if the latents are not divided.

        Every process of the group must call this.
        """
        self._n_dead = int(self._group.sum_shards(self.state.dead(self.settings.step.dead_tokens).sum()))
        return to_sae(
            self.state.exported,
            arch=self.settings.step.arch,
            k=self.settings.step.k,
            normalisation=self.normalisation,
            threshold=float(self.state.threshold),
            metadata=self._metadata(store),
            options=self.settings.step.options,
        )

    def summary(self) -> dict[str, Any]:
        """What the training was, up to `export`."""
        return {
            "name": self.name,
            "site": self.settings.site,
            "architecture": self.settings.step.arch,
            "d_in": self.state.weights.b_dec.shape[0],
            "d_sae": self.settings.d_sae,
            "k": self.settings.step.k,
            "lr": self.settings.lr,
            "n_steps": self.step,
            "n_training_tokens": self.step * self.settings.batch_size,
            "n_train_tokens": self._loader.n_tokens,
            "n_dead_in_training": self._n_dead,
            "dead_tokens": self.settings.step.dead_tokens,
            "threshold": float(self.state.threshold),
            "scale": self.normalisation.scale,
        }

    def _all_rows(self, step: int) -> np.ndarray:
        """Which rows of the store the batch of a step holds, over all processes; every one of them must call this."""
        return self._of_all_lanes(torch.from_numpy(self._loader.rows(step))).numpy()

    def _of_all_lanes(self, values: Shaped[Tensor, " token"]) -> Shaped[Tensor, " batch"]:
        """One value per token of a batch, over all processes that divide the tokens; on the CPU."""
        if self._group.n_data == 1:
            return values.cpu()
        return torch.cat(self._group.gather(values.to(self.state.threshold.device)))

    def _n_videos(self, rows: np.ndarray) -> int:
        starts = np.array([video.row_start for video in self._store.videos])
        return np.unique(np.searchsorted(starts, rows, side="right")).size

    def _stop_at_broken_batch(self, step: int, loss: float) -> None:
        """Say where in the data a loss that is not finite comes from.

        The loss is a mean over all processes, so all of them get here and say the same.
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
        self._writer.wait()
        saved = checkpoints(self.settings.folder, part_name(self._group))
        good = f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint was written before"
        return UserError(
            f"Training {self.name} stopped at step {step}: {what}; {good}. Train again with a lower --lr under another "
            "--name, or collect the activations again with --dtype float32 if they overflowed."
        )

    def _metadata(self, store: ActivationStore) -> dict[str, Any]:
        """What the SAELens folder says about the SAE; `model_name` and `hook_name` are SAELens's own names."""
        arguments = json.loads(json.dumps(self.settings.arguments, default=str))
        training = {name: value for name, value in arguments.items() if name not in ("run", "wandb")}
        return {
            "model_name": store.model.get("name"),
            "hook_name": self.settings.site,
            "model_fingerprint": store.model.get("fingerprint"),
            "store_fingerprint": store.fingerprint,
            "n_videos": len(store.videos),
            "n_train_tokens": self._loader.n_tokens,
            "n_training_tokens": self.step * self.settings.batch_size,
            "training": {**training, "lr": self.settings.lr, "dead_tokens": self.settings.step.dead_tokens},
        }


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
        on_held_out: the same on held-out ones, if there are any.
    """
    folder = trainer.settings.folder
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
