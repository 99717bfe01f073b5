"""The stage `collect`: videos through a truncated VLM into an activation store, resumable at any moment.

Threads decode and preprocess ahead; the model runs on batches; the store writes in the background. Batches begin at
fixed places in the list of videos, also after a resume, so that every forward pass has the shape that it has in a run
that was never interrupted, and every stored bit is the same. One process; splitting over several is not done here.
"""

import hashlib
import json
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from collect.artefact import check_resume, write_atomic, write_config
from collect.config import CHUNK_ROWS, CollectConfig
from collect.decode import Clip, decode_clip
from collect.errors import UserError
from collect.perception_test import Dataset, Video, load_dataset
from collect.sites import parse_site
from collect.store import FORMAT, FORMAT_VERSION, MANIFEST_NAME, Failure, VideoRecord
from collect.store_writer import SiteSpec, StoreWriter
from collect.vlm import Prefix, VideoVlm, load_vlm
from collect.vlm_files import fingerprint, resolve_model

logger = logging.getLogger(__name__)

STAGE = "collect"
FOLDER_NAME = "activations"
RANK = 0
CHANGEABLE = ("data", "model", "out", "batch_size", "device", "workers", "max_failures")
"""Arguments that a resumed run may change; data and model are compared by content instead."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ready:
    """One video on its way to the model."""

    index: int
    video: Video
    clip: Clip
    prefix: Prefix


def collect(config: CollectConfig) -> Path:
    """Collect activations; go on where an earlier run with the same arguments ended.

    Returns:
        The folder of the store, `config.out / "activations"`.

    Raises:
        UserError: data, model or a site is not there, the folder holds a store of something else, another process is
            writing it, no video (or more than `max_failures` not) can be read, or the disk is full.
    """
    dataset = load_dataset(config.data, config.split)
    videos = choose_videos(dataset, config.limit, config.seed)
    folder = config.out / FOLDER_NAME
    inputs = {"model": fingerprint(resolve_model(config.model)[0]), "data": _data_hash(videos)}
    is_begun = check_resume(folder, STAGE, config, inputs, ignore=CHANGEABLE)
    if is_begun and (folder / MANIFEST_NAME).is_file():
        logger.info("%s is finished: nothing to do", folder)
        return folder
    vlm = load_vlm(
        config.model, dtype=config.dtype, device=config.device, attn_implementation=config.attn_implementation
    )
    for site in config.sites:
        parse_site(site, vlm.n_layers)
    n_frames = config.frames or vlm.default_frames
    specs = {site: SiteSpec(d_in=vlm.d_model, dtype=vlm.dtype) for site in config.sites}
    capacity = len(videos) * vlm.max_visual_tokens(n_frames)
    with StoreWriter(folder, RANK, specs, capacity, config.shard_rows, CHUNK_ROWS) as writer:
        if not is_begun:
            write_config(folder, STAGE, config, inputs)
        try:
            _fill(writer, vlm, videos, n_frames, config)
            if writer.next_row == 0:
                raise UserError(f"No video of {config.data} could be collected: {writer.failures[0].reason}")
            writer.finish()
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error.strerror or error}): make room there and run this again; "
                "it goes on where it was."
            ) from None
        _write_manifest(folder, writer, vlm, config)
    logger.info(
        "%d videos, %d tokens, %d failures in %s", writer.n_videos, writer.n_committed, len(writer.failures), folder
    )
    return folder


def choose_videos(dataset: Dataset, limit: int | None, seed: int) -> tuple[Video, ...]:
    """Videos to collect, sorted by id: all whose files are there, or `limit` of them chosen by `seed`.

    Raises:
        UserError: no video's file is there.
    """
    videos = dataset.videos_with_files
    if not videos:
        raise UserError(f"{dataset.folder} has annotations but no videos: put them into {dataset.folder / 'videos'}.")
    if limit is None or limit >= len(videos):
        return videos
    chosen = np.random.default_rng(seed).choice(len(videos), size=limit, replace=False)
    return tuple(videos[i] for i in sorted(chosen.tolist()))


def _data_hash(videos: Iterable[Video]) -> str:
    """Hash of what decides which frames are seen: ids, file sizes, cut frames."""
    digest = hashlib.sha256()
    for video in videos:
        assert video.path is not None
        digest.update(f"{video.video_id}\0{video.path.stat().st_size}\0{video.cut_frame}\n".encode())
    return digest.hexdigest()[:32]


def _fill(writer: StoreWriter, vlm: VideoVlm, videos: Sequence[Video], n_frames: int, config: CollectConfig) -> None:
    """Collect the videos that are not committed yet."""
    if writer.is_finished:
        return
    first = writer.next_video // config.batch_size * config.batch_size
    begun, first_row = time.perf_counter(), writer.next_row
    progress = tqdm(total=len(videos), initial=writer.next_video, unit="video", desc="collect")
    with progress:
        for batch in _batches(_prepared(vlm, videos, first, n_frames, config.workers), config.batch_size):
            for outcome, residuals in _forward(vlm, batch, config.sites):
                index = outcome.index
                if index < writer.next_video:
                    continue  # committed before this run; computed again only to keep the batch's shape
                if isinstance(outcome, Failure):
                    _fail(writer, outcome, config.max_failures)
                else:
                    writer.add_video(_record(outcome, writer.next_row), residuals)
                progress.update()
            rate = (writer.next_row - first_row) / (time.perf_counter() - begun)
            progress.set_postfix_str(f"{rate:,.0f} tokens/s")


def _prepared(
    vlm: VideoVlm, videos: Sequence[Video], first: int, n_frames: int, workers: int
) -> Iterator[_Ready | Failure]:
    """Decode and preprocess videos in their order, a few ahead of the consumer."""

    def prepare(index: int) -> _Ready | Failure:
        video = videos[index]
        assert video.path is not None
        try:
            clip = decode_clip(video.path, video.video_id, n_frames, video.cut_frame)
            return _Ready(index=index, video=video, clip=clip, prefix=vlm.prefix(clip))
        except ValueError as error:  # a UserError, or what the family's own processor refuses
            return Failure(index=index, video_id=video.video_id, reason=str(error))

    queue: deque[Future[_Ready | Failure]] = deque()
    executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode")
    try:
        for index in range(first, len(videos)):
            queue.append(executor.submit(prepare, index))
            if len(queue) > 2 * workers:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _batches(outcomes: Iterator[_Ready | Failure], size: int) -> Iterator[list[_Ready | Failure]]:
    batch: list[_Ready | Failure] = []
    for outcome in outcomes:
        batch.append(outcome)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _forward(
    vlm: VideoVlm, batch: Sequence[_Ready | Failure], sites: Sequence[str]
) -> Iterator[tuple[_Ready | Failure, dict[str, Tensor]]]:
    """Residuals of each video of a batch, in order; one forward pass per run of equally sized clips."""
    ready = [outcome for outcome in batch if isinstance(outcome, _Ready)]
    residuals: dict[int, dict[str, Tensor]] = {}
    for _, group in groupby(
        ready, key=lambda r: (r.prefix.input_ids.shape, [x.shape for x in r.prefix.pixels.values()])
    ):
        members = list(group)
        found = vlm.visual_residuals([member.prefix for member in members], sites)
        for i, member in enumerate(members):
            residuals[member.index] = {site: hidden[i] for site, hidden in found.items()}
    for outcome in batch:
        if isinstance(outcome, Failure):
            yield outcome, {}
        elif all(bool(torch.isfinite(hidden).all()) for hidden in residuals[outcome.index].values()):
            yield outcome, residuals[outcome.index]
        else:
            reason = f"{outcome.clip.path} gives activations that are not finite: use another --dtype."
            yield Failure(index=outcome.index, video_id=outcome.video.video_id, reason=reason), {}


def _fail(writer: StoreWriter, failure: Failure, max_failures: int | None) -> None:
    writer.add_failure(failure)
    n = len(writer.failures)
    logger.warning("video %s is left out: %s", failure.video_id, failure.reason)
    if max_failures is not None and n > max_failures:
        raise UserError(f"{n} videos failed, more than --max-failures {max_failures}; the last: {failure.reason}")


def _record(ready: _Ready, row_start: int) -> VideoRecord:
    return VideoRecord(
        index=ready.index,
        video_id=ready.video.video_id,
        path=str(ready.clip.path.resolve()),
        split=ready.video.split,
        row_start=row_start,
        row_stop=row_start + ready.prefix.grid.n_tokens,
        grid=ready.prefix.grid,
        frame_rate=ready.clip.frame_rate,
        n_frames=ready.clip.n_frames,
        width=ready.clip.width,
        height=ready.clip.height,
    )


def _write_manifest(folder: Path, writer: StoreWriter, vlm: VideoVlm, config: CollectConfig) -> None:
    dtype = str(vlm.dtype).removeprefix("torch.")
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "sites": {site: {"d_in": vlm.d_model, "dtype": dtype} for site in config.sites},
        "shard_rows": config.shard_rows,
        "chunk_rows": CHUNK_ROWS,
        "n_tokens": writer.n_committed,
        "n_videos": writer.n_videos,
        "ranks": [
            {
                "zarr": f"rank-{RANK}.zarr",
                "log": f"rank-{RANK}.jsonl",
                "n_tokens": writer.n_committed,
                "n_videos": writer.n_videos,
            }
        ],
        "model": vlm.describe(),
        "failures": [asdict(failure) for failure in writer.failures],
    }
    write_atomic(folder / MANIFEST_NAME, json.dumps(manifest, indent=2) + "\n")
