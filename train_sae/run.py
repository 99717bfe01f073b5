"""The `train` stage: activations of one hook site in, an SAE folder that SAELens loads out.

    RUN/sae/NAME/   cfg.json sae_weights.safetensors sparsity.safetensors   the SAE
                    config.json metrics.jsonl summary.json checkpoints/     how it came about, how good it is

Trains on the train videos only; `collect.split` says which those are. `summary.json` is written last: a folder that has
it is finished. Until then a rerun goes on from the newest checkpoint.
"""

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from collect.artefact import check_resume, write_atomic, write_config
from collect.errors import UserError
from collect.split import held_out_ids
from collect.store import ActivationStore
from train_sae.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from train_sae.config import TrainConfig
from train_sae.export import save_sae, to_sae
from train_sae.loader import TokenLoader, split_by_video
from train_sae.metrics import Quality, evaluate
from train_sae.normalize import Normalisation, measure
from train_sae.run_log import MetricsLog
from train_sae.schedule import learning_rate
from train_sae.state import TrainState, initial_state
from train_sae.step import StepSettings, StepStats, take_step

SUMMARY_NAME = "summary.json"
STAGE = "train"
_LOG_EVERY = 50
_MEASURED_TOKENS = 2**20
_EVALUATED_TOKENS = 2**20
_THRESHOLD_RATE = 0.01
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

log = logging.getLogger(__name__)


def train(config: TrainConfig) -> Path:
    """Train an SAE, or go on with one, and return its folder.

    Raises:
        UserError: there are no activations of that site, no train videos, the folder belongs to other settings, the
            device is not there, or the loss stopped being finite.
    """
    store = ActivationStore.open(config.run / "activations")
    if config.site not in store.sites:
        raise UserError(
            f"{config.run / 'activations'} holds no site {config.site!r}: choose one of {', '.join(store.sites)}, "
            "or collect that site."
        )
    folder = config.folder
    inputs = {"activations": _identity(store, config.site)}
    begun = check_resume(folder, STAGE, config, inputs, ignore=("device", "checkpoint_every", "wandb"))
    if begun and (folder / SUMMARY_NAME).exists():
        log.info("%s is already trained: nothing to do.", folder)
        return folder
    device = _resolve_device(config.device)

    split = split_by_video(store.videos, held_out_ids((video.video_id, video.split) for video in store.videos))
    if not split.train:
        raise UserError(
            f"{config.run / 'activations'} holds no tokens of train videos: collect more videos, or another split."
        )
    loader = TokenLoader(store, config.site, split.train, batch_size=config.batch_size, seed=config.seed)
    if not begun:
        write_config(folder, STAGE, config, inputs)
    state, normalisation = _begin_or_resume(folder, config, loader, device)
    _fit(folder, config, loader, state, normalisation)

    sae = to_sae(
        state.exported,
        arch=config.arch,
        k=config.k,
        normalisation=normalisation,
        threshold=float(state.threshold),
        metadata=_metadata(config, store, loader, state),
    )
    on_device = sae.to(device)
    on_train, firing_rate = evaluate(on_device, _counted("evaluate on train", loader.sample(_EVALUATED_TOKENS)))
    on_held_out: Quality | None = None
    if split.held_out:
        apart = TokenLoader(store, config.site, split.held_out, batch_size=config.batch_size, seed=config.seed)
        sample = _counted("evaluate on held-out", apart.sample(_EVALUATED_TOKENS))
        on_held_out, _ = evaluate(on_device, sample)
    else:
        log.warning("No video is held out, so the SAE is evaluated on its train videos only: collect more videos.")
    save_sae(folder, sae, firing_rate)
    dead_tokens = config.dead_after(loader.n_tokens)
    summary = {
        "name": config.sae_name,
        "site": config.site,
        "architecture": config.arch,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "k": config.k,
        "n_steps": state.step,
        "n_training_tokens": state.step * config.batch_size,
        "n_train_tokens": loader.n_tokens,
        "n_dead_in_training": int(state.dead(dead_tokens).sum()),
        "dead_tokens": dead_tokens,
        "threshold": float(state.threshold),
        "scale": normalisation.scale,
        "train": _jsonable(on_train),
        "held_out": _jsonable(on_held_out) if on_held_out else None,
    }
    write_atomic(folder / SUMMARY_NAME, json.dumps(summary, indent=2) + "\n")
    shown = on_held_out or on_train
    log.info(
        "%s: FVU %.3f, L0 %.1f, %d of %d latents dead, %d dense (%s videos)",
        *(folder, shown.fvu, shown.l0, shown.n_dead, sae.d_sae, shown.n_dense, "held-out" if on_held_out else "train"),
    )
    return folder


def _identity(store: ActivationStore, site: str) -> str:
    """Hash of what is trained on: the videos' rows and splits, and the moments of the site's activations."""
    moments = store.moments(site)
    rows = [(video.video_id, video.split, video.row_start, video.row_stop) for video in store.videos]
    content = json.dumps(rows).encode() + moments.mean.tobytes() + moments.second_moment.tobytes()
    return hashlib.sha256(content).hexdigest()


def _begin_or_resume(
    folder: Path, config: TrainConfig, loader: TokenLoader, device: torch.device
) -> tuple[TrainState, Normalisation]:
    saved = checkpoints(folder)
    if saved:
        state, normalisation = load_checkpoint(saved[-1], device)
        log.info("Going on from step %d (%s).", state.step, saved[-1])
        return state, normalisation
    normalisation = measure(_counted("measure norm", loader.sample(_MEASURED_TOKENS)))
    center = normalisation.center.float().to(device)
    return initial_state(center, config.d_sae, config.seed, config.arch), normalisation


def _fit(
    folder: Path, config: TrainConfig, loader: TokenLoader, state: TrainState, normalisation: Normalisation
) -> None:
    """Take the steps that are left, logging and saving checkpoints."""
    n_steps = max(1, round(config.epochs * loader.n_tokens / config.batch_size))
    device, d_in = state.weights.b_dec.device, state.weights.b_dec.shape[0]
    settings = StepSettings(
        arch=config.arch,
        k=config.k,
        dead_tokens=config.dead_after(loader.n_tokens),
        aux_k=max(1, d_in // 2),
        precision=_PRECISIONS[config.dtype],
        # Short trainings forget faster: the first steps, with other activations, are to be forgotten by the end.
        threshold_rate=min(1.0, max(_THRESHOLD_RATE, 20 / n_steps)),
    )
    record = MetricsLog(folder, config, state.step)
    window: list[StepStats] = []
    began = time.perf_counter()
    progress = tqdm(
        total=n_steps * config.batch_size,
        initial=state.step * config.batch_size,
        desc=f"train {config.sae_name}",
        unit="token",
        unit_scale=True,
    )
    try:
        for batch in loader.batches(state.step, n_steps):
            x = normalisation.apply(batch.to(device))
            lr = learning_rate(state.step, n_steps, config.peak_lr)
            window.append(take_step(state, x, settings, lr))
            progress.update(config.batch_size)
            due = state.step % config.checkpoint_every == 0 or state.step == n_steps
            if due or state.step % _LOG_EVERY == 0:
                metrics = _summarise(folder, loader, state, window)
                now = time.perf_counter()
                rate = len(window) * config.batch_size / (now - began)
                record.write({"tokens": state.step * config.batch_size, **metrics, "lr": lr, "tokens_per_s": rate})
                progress.set_postfix({name: f"{metrics[name]:.4g}" for name in ("fvu", "l0", "dead")}, refresh=False)
                window, began = [], now
            if due:
                if not state.is_finite():
                    raise _diverged(folder, state.step, "a weight is not finite")
                save_checkpoint(folder, state, normalisation)
    finally:
        progress.close()
        record.close()


def _summarise(folder: Path, loader: TokenLoader, state: TrainState, window: list[StepStats]) -> dict[str, int | float]:
    """Reduce a window of steps to one line of metrics: the only place where the host waits for the device.

    Raises:
        UserError: a loss in the window is not finite.
    """
    columns: dict[str, Float[Tensor, " step"]] = {
        name: torch.stack([getattr(stats, name) for stats in window]).cpu().double() for name in StepStats._fields
    }
    broken = (~columns["mse"].isfinite()).nonzero()
    if broken.numel():
        step = state.step - len(window) + int(broken[0])
        finite = bool(loader.batch(step).isfinite().all())
        cause = "though its activations are finite" if finite else "because activations in its batch are not finite"
        raise _diverged(folder, step, f"the loss is {float(columns['mse'][broken[0]])} {cause}")
    return {
        "step": state.step,
        "mse": float(columns["mse"].mean()),
        "aux": float(columns["aux"].mean()),
        "fvu": float(columns["mse"].sum() / columns["variance"].sum()),
        "l0": float(columns["l0"].mean()),
        "dead": float(columns["n_dead"][-1]),
        "threshold": float(columns["threshold"][-1]),
    }


def _diverged(folder: Path, step: int, what: str) -> UserError:
    saved = checkpoints(folder)
    good = f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint was written before"
    return UserError(
        f"Training {folder.name} stopped at step {step}: {what} ({good}); train again with a lower --lr under another "
        "--name, or collect the activations again with --dtype float32 if they overflowed."
    )


def _metadata(config: TrainConfig, store: ActivationStore, loader: TokenLoader, state: TrainState) -> dict[str, Any]:
    """What the SAELens folder says about the SAE; `model_name` and `hook_name` are SAELens's own names."""
    training = {name: value for name, value in dataclasses.asdict(config).items() if name not in ("run", "wandb")}
    return {
        "model_name": store.model.get("name"),
        "hook_name": config.site,
        "model_fingerprint": store.model.get("fingerprint"),
        "store_fingerprint": store.fingerprint,
        "n_videos": len(store.videos),
        "n_train_tokens": loader.n_tokens,
        "n_training_tokens": state.step * config.batch_size,
        "training": {**training, "lr": config.peak_lr, "dead_tokens": config.dead_after(loader.n_tokens)},
    }


def _resolve_device(name: str) -> torch.device:
    """Turn a device's name into a device.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device {name} is not available here: choose cpu, or leave it out.") from None
    return device


def _counted(what: str, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Show progress in tokens where going through the chunks takes long."""
    with tqdm(desc=what, unit="token", unit_scale=True, delay=2, leave=False) as progress:
        for chunk in chunks:
            yield chunk
            progress.update(len(chunk))


def _jsonable(quality: Quality) -> dict[str, int | float | None]:
    """The numbers of a quality by name; null where one is not defined, since JSON has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in dataclasses.asdict(quality).items()}
