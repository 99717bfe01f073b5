"""From videos to activations in host memory, with every step overlapped and bounded memory.

    decode and preprocess   `workers` threads, `Lookahead` clips ahead of the model
    forward                 the consuming thread; on a GPU it only launches work
    device to host          streams of their own into pinned buffers, during the next forward pass
    write                   the consumer takes the batch before while the GPU computes this one; the store has a thread

So at most `batch_size + 2 × workers` clips, two batches of activations and (in the store's writer) two shards are in
memory, however slow the consumer is.

A batch that does not fit into memory is halved, as often as needed; a single video that does not fit fails with that
reason. Sizes that did not fit are remembered, so that the split is found only once per size and then made again.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from collect.data.perception_test import Video
from collect.reading import Failure
from collect.tokens.subset import Chosen
from collect.video.sampling import FrameSampling
from collect.vlm import Prefix, VideoVlm

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, eq=False)
class Ready:
    """One video on its way to the model; its frames are no longer in memory, only the model's inputs."""

    index: int
    video: Video
    prefix: Prefix
    chosen: Chosen
    path: Path
    frame_rate: float
    n_frames: int
    height: int
    width: int

    @property
    def size(self) -> tuple[object, ...]:
        """What must agree within a forward pass."""
        return (self.prefix.layout,)


Outcome = tuple[Ready, dict[str, Tensor]] | Failure
"""A video with the activations [token, d_in] of its chosen tokens per site, on the CPU; or why there are none."""


def in_order(function: Callable[[T], R], items: Iterable[T], *, workers: int, ahead: int) -> Iterator[R]:
    """Apply a function in threads and yield its results in the order of the items.

    At most `ahead + workers` results have been started and not yet taken.
    """
    queue: deque[Future[R]] = deque()
    executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode")
    try:
        for item in items:
            if len(queue) >= ahead + workers:
                yield queue.popleft().result()
            queue.append(executor.submit(function, item))
        while queue:
            yield queue.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def worker_bytes(videos: Sequence[Video], sampling: FrameSampling) -> int:
    """About the memory of a worker: two clips of the largest video, as bytes and as floats. Unknown sizes are HD."""
    pixels = max((video.height * video.width for video in videos), default=0) or 1920 * 1080
    return 2 * sampling.n_at_most * pixels * 3 * (1 + 4)


def prepared_batches(
    prepare: Callable[[int], Ready | Failure], batches: Sequence[Sequence[int]], *, workers: int
) -> Iterator[list[Ready | Failure]]:
    """Decode and preprocess batch after batch, ahead of the consumer by one batch."""
    ahead = max(map(len, batches), default=0) + workers
    ready = in_order(prepare, (i for batch in batches for i in batch), workers=workers, ahead=ahead)
    try:
        for batch in batches:
            yield [next(ready) for _ in batch]
    finally:
        ready.close()  # type: ignore[attr-defined]  # a generator


class Forward:
    """The model over batches; results come one batch late, while the device is busy with the next one.

    Args:
        vlm: the model.
        sites: what to read.
    """

    def __init__(self, vlm: VideoVlm, sites: Sequence[str]) -> None:
        self._vlm, self._sites = vlm, tuple(sites)
        self._copies = _copies_from(vlm.device)
        self._largest: dict[tuple[object, ...], int] = {}

    def outcomes(self, batches: Iterable[Sequence[Ready | Failure]]) -> Iterator[list[Outcome]]:
        """One list per batch, in the order of its videos; the tensors are valid until the next list is taken."""
        before: Callable[[], list[Outcome]] | None = None
        for batch in batches:
            launched = self._launch(batch)
            if before is not None:
                yield before()
            before = launched
        if before is not None:
            yield before()

    def _launch(self, batch: Sequence[Ready | Failure]) -> Callable[[], list[Outcome]]:
        """Start the passes of a batch, one per size of clip; the returned function waits for them."""
        groups: dict[tuple[object, ...], list[Ready]] = {}
        for item in batch:
            if isinstance(item, Ready):
                groups.setdefault(item.size, []).append(item)
        self._copies.begin()
        done: dict[int, dict[str, Tensor] | Failure] = {}
        for size, members in groups.items():
            self._pass(size, members, done)
        copied = self._copies.end()

        def wait() -> list[Outcome]:
            copied()
            return [r if isinstance(r, Failure) else _outcome(r, done[r.index]) for r in batch]

        return wait

    def _pass(
        self, size: tuple[object, ...], members: Sequence[Ready], done: dict[int, dict[str, Tensor] | Failure]
    ) -> None:
        largest = self._largest.get(size, len(members))
        if len(members) <= largest:
            try:
                found = self._vlm.visual_residuals([member.prefix for member in members], self._sites)
                for i, member in enumerate(members):
                    done[member.index] = {
                        site: self._copies.take(_chosen_rows(hidden[i], member)) for site, hidden in found.items()
                    }
                return
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            # After the handler, so that the traceback no longer keeps the failed pass's tensors alive.
            if self._vlm.device.type == "cuda":
                torch.cuda.empty_cache()
        if len(members) == 1:
            reason = f"{members[0].path} does not fit into the memory of {self._vlm.device}: use fewer --frames."
            done[members[0].index] = _failure(members[0], reason)
            return
        half = len(members) // 2
        self._largest[size] = min(largest, len(members) - half)
        self._pass(size, members[:half], done)
        self._pass(size, members[half:], done)


class _SameMemory:
    """Stands for copies where the model runs on the CPU: there is nothing to copy."""

    def begin(self) -> None:
        pass

    def take(self, tensor: Tensor) -> Tensor:
        return tensor

    def end(self) -> Callable[[], None]:
        return lambda: None


class _PinnedCopies:
    """Copies into pinned memory, on streams of their own; two sets of buffers, used by batches in turn.

    A layer may be on any GPU, and a copy is ordered among the work of the GPU that it comes from: each has its stream.
    """

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._sets: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._turn, self._used = 0, 0

    def begin(self) -> None:
        self._turn, self._used = 1 - self._turn, 0

    def take(self, tensor: Tensor) -> Tensor:
        buffers = self._sets[self._turn]
        n_bytes = tensor.numel() * tensor.element_size()
        if self._used == len(buffers):
            buffers.append(torch.empty(0, dtype=torch.uint8))
        if buffers[self._used].numel() < n_bytes:
            buffers[self._used] = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)
        host = buffers[self._used][:n_bytes].view(tensor.dtype).view(tensor.shape)
        self._used += 1
        if tensor.device not in self._streams:
            self._streams[tensor.device] = torch.cuda.Stream(tensor.device)
        stream = self._streams[tensor.device]
        stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(stream):
            host.copy_(tensor, non_blocking=True)
        tensor.record_stream(stream)
        return host

    def end(self) -> Callable[[], None]:
        events = [torch.cuda.Event() for _ in self._streams]
        for event, stream in zip(events, self._streams.values(), strict=True):
            event.record(stream)

        def wait() -> None:
            for event in events:
                event.synchronize()

        return wait


def _chosen_rows(rows: Tensor, ready: Ready) -> Tensor:
    ranks = ready.chosen.ranks
    return rows if len(ranks) == len(rows) else rows[torch.from_numpy(ranks).to(rows.device, non_blocking=True)]


def _copies_from(device: torch.device) -> _SameMemory | _PinnedCopies:
    return _PinnedCopies() if device.type == "cuda" else _SameMemory()


def _outcome(ready: Ready, found: Mapping[str, Tensor] | Failure) -> Outcome:
    if isinstance(found, Failure):
        return found
    if all(bool(torch.isfinite(rows.sum(dtype=torch.float32))) or _all_finite(rows) for rows in found.values()):
        return ready, dict(found)
    return _failure(ready, f"{ready.path} gives activations that are not finite: use another --dtype.")


def _all_finite(rows: Tensor) -> bool:
    """The exact answer, for cases where the sum of finite numbers overflows."""
    return bool(torch.isfinite(rows).all())


def _failure(ready: Ready, reason: str) -> Failure:
    return Failure(index=ready.index, video_id=ready.video.video_id, reason=reason)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU's allocator has no exception of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
