"""The stage `collect`: videos through a truncated VLM into an activation store, resumable at any moment.

`collect.assignment` decides who collects what, `collect.pipeline` takes a video from its file to its activations, and
`collect.store.writer` writes these to disk. Batches hold the same videos after a resume too, and whichever process
makes them, so every stored bit is the same as in a run that was never interrupted.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from collect.artefact.config_json import check_resume, write_config
from collect.artefact.folder import remove_orphans
from collect.artefact.lock import writing
from collect.artefact.run_data import annotations_hash, videos_hash
from collect.assignment import Assignment, Batch, Task, estimated_costs, make_batches, read_plan, schedule, write_plan
from collect.config import CHUNK_ROWS, CollectConfig
from collect.data.annotation_files import deeper_annotations
from collect.data.perception_test import Video, load_dataset
from collect.data.video_choice import VideoChoice
from collect.errors import UserError
from collect.pipeline import Forward, Ready, prepared_batches, worker_bytes
from collect.printable import printable
from collect.process.machine import default_workers
from collect.process.ranks import Process
from collect.reading import MANIFEST_NAME, ActivationStore, Failure, VideoRecord
from collect.store.manifest import read_progress, write_manifest
from collect.store.rank_log import RankLog, log_path
from collect.store.verify import check_parts
from collect.store.writer import SiteSpec, StoreWriter, require_free
from collect.store.zarr_arrays import cut_arrays
from collect.tokens.choice import TokenChoice
from collect.tokens.subset import choose_tokens
from collect.video.decode import Clip, decode_clip
from collect.video.hardware import accelerator, require_decoder
from collect.video.sampling import FrameSampling
from collect.vlm import VideoVlm, load_vlm, require_sites
from collect.vlm.files import fingerprint, resolve_model

logger = logging.getLogger(__name__)

STAGE = "collect"
FOLDER_NAME = "activations"
CHANGEABLE = ("data", "model", "out", "device", "workers", "decoder", "max_failures")
"""Arguments that a resumed run may change; data and model are compared by content instead."""
N_NAMED = 20
"""Failures that are named when a store is finished."""


def collect(config: CollectConfig) -> Path:
    """Collect activations; continue where an earlier run with the same arguments ended, with any number of processes.

    Returns:
        The folder of the store, `config.out / "activations"`.

    Raises:
        UserError: data, model or a site is not there, the folder holds a store of something else, another process is
            writing it, no video can be read (or more than `max_failures` cannot), or the disk is full.
    """
    process = Process.of_environment()
    videos = choose_videos(config.data, VideoChoice.parse(config.select))
    folder = config.out / FOLDER_NAME
    model = _Model(config)
    with ExitStack() as held:

        def decide() -> dict[str, Any]:
            # Keeps out a second job, whatever its number of processes; a rank's own lock keeps out one that comes after
            # the first process of this job has ended and before the others have.
            held.enter_context(writing(folder))
            remove_orphans(folder)
            if not any(video.is_annotated for video in videos):
                _warn_without_annotations(config.data)
            return _decide(config, videos, folder, model, process.world_size)

        decided: dict[str, Any] = process.agree(decide)
        if decided["is_finished"]:
            logger.info("%s is finished: nothing to do", folder)
            _warn_of_failures(folder, decided["failures"])
            return folder
        tasks = [_task(content) for content in decided["tasks"][process.rank]]
        if tasks:
            try:
                _work(config, videos, folder, tasks, model.load())
            except OSError as error:
                raise UserError(
                    f"{folder} cannot be written ({error.strerror or error}): make room there and run this again; "
                    "it goes on where it was."
                ) from None
        _complete(folder, decided["ranks"])
    return folder


def choose_videos(data: Path, selection: VideoChoice) -> tuple[Video, ...]:
    """Videos to collect, sorted by id: the selected ones whose files are there.

    Raises:
        UserError: no video's file is there.
    """
    videos = load_dataset(data, selection.split, selection.ids).videos_with_files
    if not videos:
        raise UserError(f"{data} has annotations but no videos: put them into {data / 'videos'}.")
    return selection.choose(videos)


def _warn_without_annotations(data: Path) -> None:
    """Say where annotations were looked for, and where there are some; without any, nothing can be named later."""
    deeper = deeper_annotations(data) if data.is_dir() else []
    found = ", ".join(printable(place, 400) for place in deeper[:3])
    logger.warning(
        "The videos have no annotations: there are none about them in %s or in its folder `annotations`, so that "
        "`features` can name no latent and `steer` can ask no question. %s",
        data,
        f"There are some in {found}: was that meant with --data?" if deeper else "Collecting needs none.",
    )


class _Model:
    """The model of this process, loaded when it is needed."""

    def __init__(self, config: CollectConfig) -> None:
        self._config = config
        self._vlm: VideoVlm | None = None

    def load(self) -> VideoVlm:
        """Load it, or return it if it is loaded.

        Raises:
            UserError: it cannot be loaded, lacks a site, or its device does not decode videos although it should.
        """
        config = self._config
        if self._vlm is None:
            require_sites(config.model, config.sites)
            vlm = load_vlm(
                config.model, dtype=config.dtype, device=config.device, attn_implementation=config.attn_implementation
            )
            check_sites(vlm, config.sites)
            require_decoder(config.decoder, vlm.device.index)
            self._vlm = vlm
        return self._vlm


def check_sites(vlm: VideoVlm, sites: Sequence[str]) -> None:
    """Check that the model has all sites and that they have the same tokens, since a store has one set of coordinates.

    Raises:
        UserError: it lacks one, or sites of the vision tower are mixed with others.
    """
    if len({vlm.site(site).kind == "vision" for site in sites}) > 1:
        raise UserError(
            "The tokens of `vision/i` lie elsewhere than those of other sites: collect them into a run of their own."
        )


def _decide(
    config: CollectConfig, videos: Sequence[Video], folder: Path, model: _Model, world_size: int
) -> dict[str, Any]:
    """What every process has to do; called only in the first one."""
    inputs = {
        "model": fingerprint(resolve_model(config.model)[0]),
        "data": videos_hash(videos),
        "annotations": annotations_hash(videos),
    }
    # Annotations decide what is stored only with `--tokens tracks`; otherwise they may be added to at any time.
    recorded = () if TokenChoice.parse(config.tokens).on_tracks else ("annotations",)
    data = f"{config.data} with --select {config.select}" if config.select else config.data
    places = {"model": config.model, "data": data, "annotations": config.data}
    is_begun = check_resume(folder, STAGE, config, inputs, ignore=CHANGEABLE, recorded=recorded, places=places)
    if is_begun and (folder / MANIFEST_NAME).is_file():
        # Its counts are those of the logs, or it says what is wrong.
        failures = [failure.to_json() for failure in ActivationStore.open(folder).failures]
        return {"is_finished": True, "failures": failures}
    plan = read_plan(folder, len(videos)) if is_begun else None
    before = plan or Assignment(batches=make_batches(videos, config.batch_size))
    require_free(folder, before.ranks)  # the first process of another job may have ended before the others
    progress = read_progress(folder, before.ranks)
    plan, tasks = schedule(before, progress, estimated_costs(videos), world_size)
    if not is_begun:
        model.load()  # what is wrong with model or sites is reported before anything is written
        write_config(folder, STAGE, config, inputs, _paths(config))
    if plan != before or not is_begun:
        write_plan(folder, plan)
    return {"is_finished": False, "ranks": plan.ranks, "tasks": [[_plain(task) for task in own] for own in tasks]}


def _plain(task: Task) -> dict[str, Any]:
    return {**asdict(task), "wanted": sorted(task.wanted)}


def _task(content: dict[str, Any]) -> Task:
    return Task(
        rank=content["rank"],
        batches=tuple(tuple(batch) for batch in content["batches"]),
        wanted=frozenset(content["wanted"]),
    )


def _paths(config: CollectConfig) -> dict[str, Path]:
    """What later stages need to find again."""
    paths = {"run": config.out, "data": config.data}
    return paths | ({"model": Path(config.model)} if Path(config.model).is_dir() else {})


def _work(config: CollectConfig, videos: Sequence[Video], folder: Path, tasks: Sequence[Task], vlm: VideoVlm) -> None:
    sampling = FrameSampling.parse(config.frames) if config.frames else FrameSampling(n=vlm.default_frames)
    choice = TokenChoice.parse(config.tokens)
    specs = {site: SiteSpec(d_in=vlm.width(site), dtype=vlm.dtype) for site in config.sites}
    forward = Forward(vlm, config.sites)
    decode = partial(decode_clip, hwaccel=accelerator(config.decoder, vlm.device.index))

    def prepare(index: int) -> Ready | Failure:
        return _prepare(vlm, index, videos[index], config.sites[0], sampling, choice, decode)

    n_wanted = sum(len(task.wanted) for task in tasks)
    workers = config.workers or default_workers(worker_bytes(videos, sampling), n_wanted)
    with tqdm(total=n_wanted, unit="video", desc="collect") as progress:
        for task in tasks:
            with StoreWriter(
                folder, task.rank, specs, shard_rows=config.shard_rows, chunk_rows=CHUNK_ROWS, model=vlm.describe()
            ) as writer:
                prepared = partial(prepared_batches, prepare, workers=workers)
                _fill(writer, forward, prepared, task, config.max_failures, progress)
                writer.finish()


def _prepare(
    vlm: VideoVlm,
    index: int,
    video: Video,
    site: str,
    sampling: FrameSampling,
    choice: TokenChoice,
    decode: Callable[..., Clip],
) -> Ready | Failure:
    """Decode and preprocess one video; runs in one of several threads."""
    assert video.path is not None
    try:
        clip = decode(video.path, video.video_id, sampling, video.cut_frame)
        prefix = vlm.prefix(clip)
    except ValueError as error:  # a UserError, or what the family's own processor refuses
        return Failure(index=index, video_id=video.video_id, reason=str(error))
    except MemoryError:
        reason = f"{video.path} does not fit into memory: use fewer --frames."
        return Failure(index=index, video_id=video.video_id, reason=reason)
    chosen = choose_tokens(choice, vlm.grid(prefix, site), video.tracks)
    if not len(chosen.ranks):
        reason = f"{video.path} has no token that --tokens tracks would store."
        return Failure(index=index, video_id=video.video_id, reason=reason)
    return Ready(
        index=index,
        video=video,
        prefix=prefix,
        chosen=chosen,
        path=clip.path,
        frame_rate=clip.frame_rate,
        n_frames=clip.n_frames,
        height=clip.height,
        width=clip.width,
    )


def _fill(
    writer: StoreWriter,
    forward: Forward,
    prepared: Callable[[Sequence[Batch]], Iterator[list[Ready | Failure]]],
    task: Task,
    max_failures: int | None,
    progress: "tqdm[Any]",
) -> None:
    """Collect the wanted videos of one rank that are not committed yet."""
    batches: list[Batch] = [batch for batch in task.batches if task.wanted & set(batch)]
    n_tokens = 0
    for outcomes in forward.outcomes(prepared(batches)):
        for outcome in outcomes:
            index = outcome.index if isinstance(outcome, Failure) else outcome[0].index
            if index not in task.wanted:
                continue  # committed before this run; computed again only to keep the batch's shape
            if isinstance(outcome, Failure):
                _fail(writer, outcome, max_failures)
            else:
                record = _record(outcome[0], writer.next_row)
                writer.add_video(record, outcome[1])
                n_tokens += record.n_tokens
            progress.update()
        rate = n_tokens / max(progress.format_dict["elapsed"], 1e-9)
        progress.set_postfix_str(f"{rate:,.0f} tokens/s")


def _fail(writer: StoreWriter, failure: Failure, max_failures: int | None) -> None:
    writer.add_failure(failure)
    n = len(writer.failures)
    logger.warning("video %s is left out: %s", failure.video_id, failure.reason)
    if max_failures is not None and n > max_failures:
        raise UserError(f"{n} videos failed, more than --max-failures {max_failures}; the last: {failure.reason}")


def _record(ready: Ready, row_start: int) -> VideoRecord:
    return VideoRecord(
        index=ready.index,
        video_id=ready.video.video_id,
        path=str(ready.path.resolve()),
        split=ready.video.split,
        row_start=row_start,
        row_stop=row_start + len(ready.chosen.ranks),
        grid=ready.chosen.grid,
        frame_rate=ready.frame_rate,
        n_frames=ready.n_frames,
        width=ready.width,
        height=ready.height,
        ranks=None if ready.chosen.is_whole else np.asarray(ready.chosen.ranks),
    )


def _warn_of_failures(folder: Path, failures: Sequence[Mapping[str, Any]]) -> None:
    """Name the videos that a finished store lacks; a store is never added to, since its rows keep their places."""
    for failure in failures[:N_NAMED]:
        logger.warning("video %s is left out: %s", failure["video_id"], failure["reason"])
    if failures:
        logger.warning(
            "%d videos are left out of %s. The other stages do without them. If you need them, mend their files and "
            "collect into another run folder: a store takes no other files than those that it was begun with.",
            len(failures),
            folder,
        )


def _complete(folder: Path, ranks: Sequence[int]) -> None:
    """Write the manifest if all ranks are complete, which is what the last process to end finds."""
    progress = read_progress(folder, ranks)
    if not all(rank in progress and progress[rank].is_final for rank in ranks):
        logger.info("this process is done; others are still writing %s", folder)
        return
    for rank in ranks:
        cut_arrays(folder, rank)  # a process may have been killed between its last commit and this
        check_parts(RankLog.read(log_path(folder, rank)))
    manifest = write_manifest(folder, ranks)
    logger.info(
        "%d videos, %d tokens, %d failures in %s",
        manifest["n_videos"],
        manifest["n_tokens"],
        len(manifest["failures"]),
        folder,
    )
    _warn_of_failures(folder, manifest["failures"])
