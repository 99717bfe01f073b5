"""Bounded memory, batches of one size, and what does not fit into memory."""

import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from collect import run
from collect.config import CollectConfig
from collect.data.perception_test import Video
from collect.errors import UserError
from collect.pipeline import Forward, Ready, _PinnedCopies, in_order, prepared_batches
from collect.reading import ActivationStore, Failure
from collect.run import collect
from collect.store.writer import StoreWriter
from collect.tokens.choice import TokenChoice
from collect.tokens.subset import choose_tokens
from collect.video.decode import Clip, decode_clip
from collect.vlm import Prefix, VideoVlm
from tests.collect.video_files import EXACT, noise, write_video

SITES = ("projector", "resid/1")


@pytest.fixture
def ready(clips: Path, vlm: VideoVlm) -> list[Ready]:
    return [ready_of(vlm, clips, index, n_frames) for index, n_frames in enumerate((2, 2, 4, 2, 4))]


def ready_of(vlm: VideoVlm, clips: Path, index: int, n_frames: int) -> Ready:
    name = f"v{index if index < 3 else index + 1:02d}"
    path = clips / "videos" / f"{name}.mp4"
    clip = decode_clip(path, name, n_frames)
    prefix = vlm.prefix(clip)
    video = Video(video_id=name, path=path, split="", frame_rate=30.0, n_frames=12, height=48, width=64)
    return Ready(
        index=index,
        video=video,
        prefix=prefix,
        chosen=choose_tokens(TokenChoice(), prefix.grid, ()),
        path=path,
        frame_rate=30.0,
        n_frames=12,
        height=48,
        width=64,
    )


@pytest.mark.parametrize(("workers", "ahead"), [(1, 0), (2, 3), (4, 1)])
def test_results_come_in_order_and_few_are_ahead_of_a_slow_consumer(workers: int, ahead: int) -> None:
    lock, begun, most, taken = threading.Lock(), 0, 0, 0

    def work(item: int) -> int:
        nonlocal begun, most
        with lock:
            begun += 1
            most = max(most, begun - taken)
        return item * item

    results = []
    for value in in_order(work, range(40), workers=workers, ahead=ahead):
        time.sleep(0.001)  # the workers could long be done with everything
        results.append(value)
        with lock:
            taken += 1
    assert results == [i * i for i in range(40)]
    assert most <= ahead + workers + 1  # and the one that the consumer holds


def test_an_error_of_a_worker_reaches_the_consumer_and_no_thread_is_left() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise KeyError(item)
        return item

    with pytest.raises(KeyError):
        list(in_order(work, range(9), workers=2, ahead=2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_clips_in_memory_stay_few_while_the_store_is_slow(
    clips: Path, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded and not yet stored: one batch at the model, one behind it, and those that are decoded ahead."""
    for i in range(40):
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / f"w{i:02d}.mp4").symlink_to(clips / "videos" / "v00.mp4")
    lock, prepared, stored, most = threading.Lock(), 0, 0, 0
    prepare, add_video = run._prepare, StoreWriter.add_video

    def counted(*args: object) -> object:
        nonlocal prepared, most
        result = prepare(*args)
        with lock:
            prepared += 1
            most = max(most, prepared - stored)
        return result

    def slow(self: StoreWriter, *args: object) -> None:
        nonlocal stored
        time.sleep(0.02)
        add_video(self, *args)
        with lock:
            stored += 1

    monkeypatch.setattr(run, "_prepare", counted)
    monkeypatch.setattr(StoreWriter, "add_video", slow)
    config = CollectConfig(
        data=tmp_path / "many",
        model=str(tiny_vlm),
        out=tmp_path / "run",
        sites=("resid/0",),
        frames="2",
        batch_size=2,
        workers=2,
        device="cpu",
        shard_rows=256,
    )
    collect(config)
    assert stored == 40
    assert most <= 2 * 2 + (2 + 2 * 2)  # two batches of 2, and batch_size + 2 × workers ahead of them


def test_each_video_of_a_mixed_batch_has_its_own_residuals(ready: list[Ready], vlm: VideoVlm) -> None:
    batch: list[Ready | Failure] = [*ready[:2], Failure(index=9, video_id="bad", reason="why"), *ready[2:]]
    (outcomes,) = Forward(vlm, SITES).outcomes([batch])
    assert isinstance(outcomes[2], Failure)
    found = [outcome for outcome in outcomes if not isinstance(outcome, Failure)]
    assert [r.index for r, _ in found] == [0, 1, 2, 3, 4]
    for r, residuals in found:
        expected = vlm.visual_residuals([r.prefix], SITES)
        for site in SITES:
            assert residuals[site].shape == (r.prefix.grid.n_tokens, vlm.d_model)
            assert torch.allclose(residuals[site], expected[site][0], atol=1e-6)


def test_only_chosen_tokens_leave_the_device(ready: list[Ready], vlm: VideoVlm) -> None:
    few = replace(ready[0], chosen=replace(ready[0].chosen, ranks=np.array([1, 5, 30]), is_whole=False))
    ((outcome,),) = Forward(vlm, SITES).outcomes([[few]])
    assert not isinstance(outcome, Failure)
    expected = vlm.visual_residuals([few.prefix], SITES)
    assert torch.equal(outcome[1]["resid/1"], expected["resid/1"][0][[1, 5, 30]])


def limited(monkeypatch: pytest.MonkeyPatch, fits: int) -> list[int]:
    """Let forward passes over more than `fits` visual tokens run out of memory; the list has each pass's videos."""
    passes: list[int] = []
    residuals = VideoVlm.visual_residuals

    def tight(self: VideoVlm, prefixes: Sequence[Prefix], sites: Sequence[str]) -> dict[str, torch.Tensor]:
        passes.append(len(prefixes))
        if sum(len(prefix.visual_positions) for prefix in prefixes) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return residuals(self, prefixes, sites)

    monkeypatch.setattr(VideoVlm, "visual_residuals", tight)
    return passes


def test_a_batch_that_does_not_fit_is_halved_and_that_is_remembered(
    ready: list[Ready], vlm: VideoVlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = [replace(ready[0], index=i) for i in range(4)]  # of 32 tokens each
    passes = limited(monkeypatch, fits=32)
    first, second = Forward(vlm, SITES).outcomes([same, same])
    assert all(not isinstance(outcome, Failure) for outcome in (*first, *second))
    assert passes == [4, 2, 1, 1, 1, 1, 1, 1, 1, 1]


def test_a_video_that_does_not_fit_fails_and_the_others_do_not(
    ready: list[Ready], vlm: VideoVlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, fits=40)
    (outcomes,) = Forward(vlm, SITES).outcomes([ready])
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert [failure.index for failure in failed] == [2, 4]  # those with 4 frames
    assert all("does not fit into the memory of cpu: use fewer --frames" in failure.reason for failure in failed)


def test_another_error_is_not_taken_for_a_lack_of_memory(
    ready: list[Ready], vlm: VideoVlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(VideoVlm, "visual_residuals", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        list(Forward(vlm, SITES).outcomes([ready]))


def test_a_long_video_is_left_out_with_its_reason(
    clips: Path, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    for i in range(3):
        (data / f"w{i}.mp4").parent.mkdir(exist_ok=True)
        (data / f"w{i}.mp4").symlink_to(clips / "videos" / "v00.mp4")
    write_video(data / "long.mp4", [noise(48, 64, seed=t) for t in range(30)], options=EXACT)
    config = CollectConfig(
        data=data,
        model=str(tiny_vlm),
        out=tmp_path / "run",
        sites=("resid/0",),
        frames="30fps",  # as many as there are: 12, and 30
        device="cpu",
        shard_rows=256,
    )
    limited(monkeypatch, fits=12 * 16)
    store = ActivationStore.open(collect(config))
    assert [video.video_id for video in store.videos] == ["w0", "w1", "w2"]
    assert [failure.video_id for failure in store.failures] == ["long"]
    assert "does not fit into the memory" in store.failures[0].reason


def test_decoding_that_does_not_fit_is_a_failure(clips: Path, vlm: VideoVlm) -> None:
    def too_large(*_: object) -> Clip:
        raise MemoryError

    path = clips / "videos" / "v00.mp4"
    video = Video(video_id="v", path=path, split="", frame_rate=30.0, n_frames=12, height=48, width=64)
    failure = run._prepare(vlm, 0, video, "projector", run.FrameSampling(n=2), TokenChoice(), too_large)
    assert isinstance(failure, Failure)
    assert "does not fit into memory" in failure.reason


def test_a_cut_video_that_fails_now_is_refused(
    clips: Path, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first rows are stored: another video's rows must not follow them."""
    config = CollectConfig(
        data=clips,
        model=str(tiny_vlm),
        out=tmp_path / "run",
        sites=("resid/0",),
        frames="10",  # of 16 tokens each: the second video of 160 crosses the shard of 256
        device="cpu",
        shard_rows=256,
        batch_size=1,
    )
    add_video, left = StoreWriter.add_video, 3

    def interrupted(self: StoreWriter, *args: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        add_video(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "add_video", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(config)
    with monkeypatch.context() as patch:
        limited(patch, fits=100)
        with pytest.raises(UserError, match=r"Part of the video 'v01' is stored, but now .*does not fit"):
            collect(config)
    assert len(ActivationStore.open(collect(config)).videos) == 10


def test_batches_are_prepared_as_they_are_wanted() -> None:
    asked: list[int] = []

    def prepare(index: int) -> Failure:
        asked.append(index)
        return Failure(index=index, video_id=str(index), reason="none")

    batches = prepared_batches(prepare, [(3, 1), (2,)], workers=1)
    assert [[outcome.index for outcome in batch] for batch in batches] == [[3, 1], [2]]
    assert asked == [3, 1, 2]


class Placed(torch.Tensor):
    """A tensor that says it is on some GPU."""

    place = torch.device("cuda", 0)

    @property
    def device(self) -> torch.device:
        return self.place

    def record_stream(self, s: object) -> None:
        pass


def test_copies_from_several_gpus_are_ordered_and_waited_for_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers may be spread over the GPUs, so that sites lie on different ones."""
    did: list[tuple[str, int | None]] = []

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.index = device.index

        def wait_stream(self, other: "Stream") -> None:
            assert other.index == self.index
            did.append(("wait for layers", self.index))

    class Event:
        def record(self, stream: Stream) -> None:
            self.index = stream.index

        def synchronize(self) -> None:
            did.append(("wait for copies", self.index))

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, dtype, pin_memory=False: empty(*shape, dtype=dtype))  # noqa: ARG005
    for name, fake in (("Stream", Stream), ("current_stream", Stream), ("Event", Event)):
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: did.append(("copy", stream.index)) or nullcontext())
    first, second = torch.rand(3, 2), torch.rand(4, 2)
    near, far = first.clone().as_subclass(Placed), second.clone().as_subclass(Placed)
    far.place = torch.device("cuda", 1)
    copies = _PinnedCopies()
    copies.begin()
    found = [copies.take(near), copies.take(far)]
    copies.end()()
    assert torch.equal(found[0], first)
    assert torch.equal(found[1], second)
    assert did == [
        *(("wait for layers", 0), ("copy", 0), ("wait for layers", 1), ("copy", 1)),
        *(("wait for copies", 0), ("wait for copies", 1)),
    ]
