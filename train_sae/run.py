"""The `train` stage: activations of one hook site in, folders that SAELens loads out, one per SAE.

    RUN/sae/NAME/   cfg.json sae_weights.safetensors sparsity.safetensors   the SAE
                    config.json metrics.jsonl summary.json checkpoints/     how it came about, how good it is
    RUN/sae/        comparison.parquet comparison.svg                       all finished SAEs of the run

Several SAEs share one pass over the data: each batch is read once and trains them one after another. Only train videos
are used; `collect.data.split` says which those are. `summary.json` is written last (`collect.artefact.stage`). Until
then, a rerun continues from the newest checkpoint of each SAE.

Under `torchrun` the processes share the work (`parallel`). The first one writes and, unless the latents are divided,
evaluates.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from collect.artefact.config_json import write_config
from collect.artefact.folder import CONFIG_NAME
from collect.artefact.lock import writing
from collect.artefact.stage import found_state
from collect.data.split import held_out_ids
from collect.errors import UserError
from collect.process.device import resolve_device, resolve_dtype
from collect.process.ranks import Process
from collect.reading import ActivationStore
from train_sae.batches.loader import TokenLoader
from train_sae.batches.normalisation import measure
from train_sae.batches.shard_reader import ShardReader
from train_sae.batches.token_set import TokenSet, filtered_rows, split_by_video
from train_sae.config import SaeConfig, TrainConfig
from train_sae.options import LoopOptions
from train_sae.phases import Phases
from train_sae.processes.group import Group
from train_sae.processes.parallel import check_parts, joined
from train_sae.processes.sharded_sae import whole_sae
from train_sae.quality.comparison import write_comparison
from train_sae.quality.metrics import evaluate
from train_sae.resume import begin_or_resume, newest_step
from train_sae.sae import Sae
from train_sae.settings import resolve
from train_sae.step.determinism import deterministic
from train_sae.step.memory import freed_memory_kept, least_bytes, require_memory
from train_sae.trainer import STAGE, SaeTrainer, finish

_MEASURED_TOKENS = 2**20
_EVALUATED_TOKENS = 2**20

log = logging.getLogger(__name__)


def train(config: TrainConfig) -> Path:
    """Train SAEs, or continue training them, and return the folder: of the SAE, or of all of them in a sweep.

    Raises:
        UserError: there are no activations of that site, no train videos, a folder belongs to other settings, another
            process is writing one, the device is not there, or a loss stopped being finite.
    """
    store = ActivationStore.open(config.run / "activations")
    if config.site not in store.sites:
        raise UserError(
            f"{config.run / 'activations'} holds no site {config.site!r}: choose one of {', '.join(store.sites)}, "
            "or collect that site."
        )
    device, first = resolve_device(config.device), Process.of_environment()
    with joined(config.parsed.loop.shard_latents, device) as group, ExitStack() as held:
        config = replace(config, dtype=first.agree(lambda: resolve_dtype(config.dtype, device)))
        inputs = {"activations": _identity(store, config.site)}
        if group.n_processes > 1:
            inputs["processes"] = str(group.n_processes)
        is_finished = first.agree(lambda: _hold(config.saes(), inputs, held))
        left = [sae for sae, finished in zip(config.saes(), is_finished, strict=True) if not finished]
        if left:
            _train(config, store, device, group, inputs, left)
    return config.folder if len(config.saes()) == 1 else config.run / "sae"


def _hold(saes: Sequence[SaeConfig], inputs: Mapping[str, str], held: ExitStack) -> list[bool]:
    """Keep every other job out of the SAEs' folders, and find out which of them are finished."""
    for sae in saes:
        held.enter_context(writing(sae.folder))
    return [
        found_state(sae.folder, STAGE, sae.arguments(), inputs, ignore=("run", "device", "wandb")) == "finished"
        for sae in saes
    ]


def _train(
    config: TrainConfig,
    store: ActivationStore,
    device: torch.device,
    group: Group,
    inputs: Mapping[str, str],
    left: Sequence[SaeConfig],
) -> None:
    """Train the SAEs that are left, and write their folders."""
    check_parts(group, config)
    options = config.parsed
    train_set, held_out_set = token_sets(store, config)
    if train_set.n_tokens < group.n_data:
        raise UserError(
            f"{config.run / 'activations'} holds {train_set.n_tokens or 'no'} tokens of train videos that pass --tokens"
            f"{f', fewer than the {group.n_data} processes' if train_set.n_tokens else ''}: collect more videos, "
            "or another split, or filter less."
        )
    if train_set.n_tokens < config.batch_size:
        log.warning(
            "--batch-size %d is more than the %d tokens of train videos that pass --tokens: a step sees tokens several "
            "times; give a smaller one, or collect more videos.",
            config.batch_size,
            train_set.n_tokens,
        )
    d_in = store.d_in(config.site)
    require_memory(sum(least_bytes(sae.arch, d_in, sae.d_sae) for sae in left) // group.n_shards, device)
    reader = ShardReader(store.shards(config.site), store.dtype(config.site), verify=options.loop.verify)
    loader = TokenLoader(
        reader,
        train_set,
        batch_size=config.batch_size,
        seed=config.seed,
        n_lanes=group.n_data,
        lanes=[group.rank] if group.n_data > 1 else None,
        device=device,
        resident=options.loop.resident,
    )
    # What is measured does not depend on how many processes share the work.
    sampler = loader
    if loader.n_lanes > 1:
        sampler = TokenLoader(reader, train_set, batch_size=config.batch_size, seed=config.seed, device=device)
    for sae in left:
        if group.is_first and not (sae.folder / CONFIG_NAME).exists():
            write_config(sae.folder, STAGE, sae.arguments(), inputs)
    measured = None
    trainers: list[SaeTrainer] = []
    for sae in left:
        step = newest_step(sae, group, device)
        if measured is None and step == 0:
            measured = measure(_counted("measure norm", sampler.sample(_MEASURED_TOKENS), group), options.sae)
        settings = resolve(sae, d_in=reader.d_in, n_tokens=loader.n_tokens, group=group)
        trainers.append(begin_or_resume(settings, store, loader, step, measured, device))
    with deterministic(options.loop.deterministic), freed_memory_kept():
        _fit(loader, trainers, options.loop, device, group)

    saes = [trainer.export(store).to(device) for trainer in trainers]
    if group.is_first or group.n_shards > 1:
        _finish_all(trainers, saes, sampler, reader, held_out_set, group)
    if group.is_first:
        with writing(config.run / "sae", wait=True):  # others may be training other SAEs of this run
            write_comparison(config.run / "sae")
    group.barrier()


def _finish_all(
    trainers: list[SaeTrainer],
    saes: list[Sae],
    sampler: TokenLoader,
    reader: ShardReader,
    held_out_set: TokenSet,
    group: Group,
) -> None:
    """Evaluate the SAEs (each process may have only a share of them) and write their folders."""
    on_train = evaluate(saes, _counted("evaluate on train", sampler.sample(_EVALUATED_TOKENS), group), group)
    on_held_out, settings = None, trainers[0].settings
    if held_out_set.n_tokens:
        apart = TokenLoader(reader, held_out_set, batch_size=settings.batch_size, seed=settings.step.seed)
        sample = _counted("evaluate on held-out", apart.sample(_EVALUATED_TOKENS), group)
        on_held_out = evaluate(saes, sample, group)
    elif group.is_first:
        log.warning("No video is held out, so the SAE is evaluated on its train videos only: collect more videos.")
    for number, (trainer, share) in enumerate(zip(trainers, saes, strict=True)):
        sae = whole_sae(share, group)
        if sae is not None:
            finish(trainer, sae, on_train[number], on_held_out[number] if on_held_out else None)


def token_sets(store: ActivationStore, config: TrainConfig) -> tuple[TokenSet, TokenSet]:
    """The rows to train on, and the same for the held-out videos.

    Raises:
        UserError: a filter cannot be applied.
    """
    split = split_by_video(store.videos, held_out_ids((video.video_id, video.split) for video in store.videos))
    kept = filtered_rows(store, config.site, config.tokens)
    return TokenSet(split.train, kept), TokenSet(split.held_out, kept)


def _identity(store: ActivationStore, site: str) -> str:
    """Hash of what is trained on: the videos' rows and splits, and the moments of the site's activations."""
    moments = store.moments(site)
    rows = [(video.video_id, video.split, video.row_start, video.row_stop) for video in store.videos]
    content = json.dumps(rows).encode() + moments.mean.tobytes() + moments.second_moment.tobytes()
    return hashlib.sha256(content).hexdigest()


def _fit(
    loader: TokenLoader, trainers: list[SaeTrainer], options: LoopOptions, device: torch.device, group: Group
) -> None:
    """Take the steps that are left; an SAE that is ahead of the others waits for them."""
    start, n_steps = min(trainer.step for trainer in trainers), trainers[0].settings.n_steps
    phases = Phases()
    progress = tqdm(
        total=n_steps * loader.batch_size,
        initial=start * loader.batch_size,
        desc=f"train {trainers[0].name}" if len(trainers) == 1 else f"train {len(trainers)} SAEs",
        unit="token",
        unit_scale=True,
        disable=not group.is_first,
    )
    try:
        for trainer in trainers:
            trainer.open_log(phases)
        for batch in phases.timed("loader", loader.batches(start, n_steps)):
            with phases("step"):
                x = batch.to(device, non_blocking=True)
                waiting = [trainer for trainer in trainers if trainer.step == start]
                for trainer in waiting:
                    trainer.train_on(x)
            start += 1
            progress.update(loader.batch_size)
            is_last = start == n_steps
            if is_last or start % options.checkpoint_every == 0 or start % options.log_every == 0:
                for trainer in waiting:
                    shown = trainer.write_log()
                    if len(trainers) == 1:
                        progress.set_postfix(shown, refresh=False)
            if is_last or start % options.checkpoint_every == 0:
                with phases("checkpoint"):
                    for trainer in waiting:
                        trainer.save()
    finally:
        progress.close()
        for trainer in trainers:
            trainer.close()


def _counted(what: str, chunks: Iterable[Tensor], group: Group) -> Iterator[Tensor]:
    """Show progress in tokens, in the first process, if going through the chunks takes long."""
    quiet = not group.is_first
    with tqdm(desc=what, unit="token", unit_scale=True, delay=2, leave=False, disable=quiet) as progress:
        for chunk in chunks:
            yield chunk
            progress.update(len(chunk))
