import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from collect import run
from collect.config import CollectConfig, VerifyConfig
from collect.data.perception_test import load_dataset
from collect.data.video_choice import VideoChoice
from collect.errors import UserError
from collect.reading import ActivationStore
from collect.run import choose_videos, collect
from collect.store.verify import verify
from collect.store.writer import StoreWriter
from collect.tokens.subset import on_tracks
from collect.video.decode import decode_clip
from collect.vlm import VideoVlm
from tests.collect.store_files import contents
from tests.collect.video_files import EXACT, noise, write_video

N_FRAMES = 8  # of 16 tokens each: 128 tokens a video, two videos a shard of 256


@pytest.fixture
def config(clips: Path, tiny_vlm: Path, tmp_path: Path) -> CollectConfig:
    return CollectConfig(
        data=clips,
        model=str(tiny_vlm),
        out=tmp_path / "run",
        sites=("projector", "resid/1"),
        frames=str(N_FRAMES),
        batch_size=3,
        device="cpu",
        shard_rows=256,
    )


@pytest.fixture(scope="module")
def finished(clips: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an uninterrupted run."""
    return collect(
        CollectConfig(
            data=clips,
            model=str(tiny_vlm),
            out=tmp_path_factory.mktemp("finished"),
            sites=("projector", "resid/1"),
            frames=str(N_FRAMES),
            batch_size=3,
            device="cpu",
            shard_rows=256,
        )
    )


def stored(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name != "config.json"}


def test_each_video_has_the_residuals_of_its_own_forward_pass(finished: Path, clips: Path, vlm: VideoVlm) -> None:
    store = ActivationStore.open(finished)
    assert [video.video_id for video in store.videos] == [f"v{i:02d}" for i in range(11) if i != 3]
    for video in store.videos:
        clip = decode_clip(clips / "videos" / f"{video.video_id}.mp4", video.video_id, N_FRAMES)
        expected = vlm.visual_residuals([vlm.prefix(clip)], store.sites)
        rows = store.rows_of(video.video_id)
        for site in store.sites:
            assert torch.allclose(store.read(site, rows.start, rows.stop), expected[site][0], atol=1e-6)
        assert np.array_equal(video.grid.frame_ids, clip.frame_ids)
        assert (video.width, video.height, video.n_frames) == (64, 48, 12)


def test_manifest_says_what_was_collected(finished: Path, vlm: VideoVlm) -> None:
    store = ActivationStore.open(finished)
    assert store.sites == ("projector", "resid/1")
    assert store.n_tokens == 10 * 128
    assert store.model["fingerprint"] == vlm.fingerprint
    (failure,) = store.failures
    assert (failure.index, failure.video_id) == (3, "v03")
    assert "v03.mp4 cannot be decoded as a video" in failure.reason


def test_running_it_again_does_nothing(finished: Path, config: CollectConfig, caplog: pytest.LogCaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    with caplog.at_level("INFO"):
        assert collect(replace(config, out=finished.parent)) == finished
    assert "is finished: nothing to do" in caplog.text
    assert "video v03 is left out: " in caplog.text
    assert "The videos have no annotations" in caplog.text
    assert f"1 videos are left out of {finished}" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_the_cheapest_remedy_of_damage_is_enough(config: CollectConfig, finished: Path) -> None:
    folder = Path(shutil.copytree(finished.parent, config.out)) / "activations"
    manifest, shard = folder / "manifest.json", folder / "rank-0.zarr" / "projector" / "c" / "4" / "0"
    manifest.write_text(manifest.read_text()[:-9])
    with pytest.raises(UserError, match="delete this file alone and run `video-sae collect` as before"):
        collect(config)
    manifest.unlink()
    assert stored(collect(config)) == stored(finished)
    shard.write_bytes(bytes(100))
    with pytest.raises(UserError, match=r"or run `video-sae verify --repair` on its run and then `video-sae collect`"):
        ActivationStore.open(folder).read("projector", 1024, 1280)
    with pytest.raises(UserError):
        verify(VerifyConfig(run=config.out, repair=True))
    assert stored(collect(config)) == stored(finished)


@pytest.mark.parametrize("n_videos", [1, 4, 7])
def test_resumed_equals_uninterrupted(
    config: CollectConfig, finished: Path, monkeypatch: pytest.MonkeyPatch, n_videos: int
) -> None:
    add_video = StoreWriter.add_video
    left = n_videos

    def interrupted(*args: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        add_video(*args)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "add_video", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(config)
    with pytest.raises(UserError, match="is not finished"):
        ActivationStore.open(config.out / "activations")
    assert stored(collect(config)) == stored(finished)


COLLECT = """
import sys
from pathlib import Path
from collect.config import CollectConfig
from collect.run import collect
data, model, out = sys.argv[1:]
collect(CollectConfig(data=Path(data), model=model, out=Path(out), sites=("projector", "resid/1"), frames="8",
                      batch_size=3, device="cpu", shard_rows=256))
"""


def test_kill_9_and_resume_equals_uninterrupted(clips: Path, config: CollectConfig, tmp_path: Path) -> None:
    data = tmp_path / "many"
    data.mkdir()
    for i in range(60):
        shutil.copy(clips / "videos" / f"v{i % 3:02d}.mp4", data / f"w{i:02d}.mp4")
    config = replace(config, data=data)
    log = config.out / "activations" / "rank-0.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", COLLECT, str(data), config.model, str(config.out)], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 90
        while not log.exists() or log.read_bytes().count(b"\n") < 4:
            assert time.monotonic() < deadline, "the run did not get so far"
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (log.parent / "manifest.json").exists()
    resumed = stored(collect(config))
    assert resumed == stored(collect(replace(config, out=tmp_path / "whole")))


def test_killed_between_the_last_commit_and_the_end(config: CollectConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("collect.store.writer.cut_arrays", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(config)
    folder = collect(config)
    arrays = [json.loads(path.read_text()) for path in folder.glob("rank-0.zarr/**/zarr.json")]
    lengths = {array["shape"][0] for array in arrays if array["node_type"] == "array"}
    assert lengths == {json.loads((folder / "manifest.json").read_text())["n_tokens"]}


def test_other_arguments_are_refused_with_what_differs(config: CollectConfig, finished: Path) -> None:
    before = stored(finished)
    with pytest.raises(UserError, match=r'frames = "8" \(now "4"\)'):
        collect(replace(config, out=finished.parent, frames="4"))
    with pytest.raises(UserError, match=r'sites = \["projector", "resid/1"\] \(now \["resid/0"\]\)'):
        collect(replace(config, out=finished.parent, sites=("resid/0",)))
    assert stored(finished) == before


def test_a_store_of_another_model_is_refused(config: CollectConfig, finished: Path, tmp_path: Path) -> None:
    from demo.vlm.architecture import save_untrained

    other = save_untrained(tmp_path / "other", size="tiny", seed=1)
    with pytest.raises(UserError, match=r"input model \(.*\) = "):
        collect(replace(config, out=finished.parent, model=str(other)))


def test_a_store_of_other_videos_is_refused(config: CollectConfig, finished: Path, clips: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(clips, tmp_path / "data"))
    (data / "videos" / "v00.mp4").unlink()
    with pytest.raises(UserError, match=r"input data \(.*\) = "):
        collect(replace(config, out=finished.parent, data=data))


def test_paths_and_pace_may_change(config: CollectConfig, finished: Path, clips: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(clips, tmp_path / "moved"))
    out = tmp_path / "elsewhere"
    shutil.copytree(finished, out / "activations")
    assert collect(replace(config, out=out, data=moved, workers=1)) == out / "activations"


def test_a_second_process_is_kept_out(config: CollectConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(*_: object, **__: object) -> None:
        collect(config)

    monkeypatch.setattr(run, "_work", second)
    with pytest.raises(UserError, match="is being written by another process"):
        collect(config)


def test_too_many_failures_stop_the_run_and_leave_it_resumable(config: CollectConfig, finished: Path) -> None:
    with pytest.raises(UserError, match="1 videos failed, more than --max-failures 0"):
        collect(replace(config, max_failures=0))
    assert stored(collect(replace(config, max_failures=1))) == stored(finished)


def test_no_readable_video(config: CollectConfig, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"No video could be collected into .*: .*a\.mp4 cannot be decoded"):
        collect(replace(config, data=tmp_path / "bad"))


def test_activations_that_are_not_finite_are_left_out(config: CollectConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    residuals = VideoVlm.visual_residuals

    def broken(self: VideoVlm, prefixes: list, sites: list) -> dict[str, torch.Tensor]:
        found = {site: hidden.clone() for site, hidden in residuals(self, prefixes, sites).items()}
        if len(prefixes) == 3:  # the batch that has the first video
            found["resid/1"][0, 5, 2] = float("inf")
        return found

    monkeypatch.setattr(VideoVlm, "visual_residuals", broken)
    store = ActivationStore.open(collect(config))
    assert "v00" in {failure.video_id for failure in store.failures}
    assert all("not finite" in failure.reason for failure in store.failures if failure.video_id != "v03")


def test_an_unknown_site_is_refused_before_anything_is_written(config: CollectConfig) -> None:
    with pytest.raises(UserError, match="no site 'resid/7'"):
        collect(replace(config, sites=("resid/7",)))
    assert not (config.out / "activations").exists()


def test_a_full_disk_is_told_in_one_sentence(config: CollectConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StoreWriter, "add_video", full)
    with pytest.raises(UserError, match=r"cannot be written .*No space left on device.*: make room"):
        collect(config)


def test_the_cut_frame_is_kept(config: CollectConfig, tmp_path: Path) -> None:
    from tests.collect.data.test_perception_test import VIDEO

    data = tmp_path / "cut"
    write_video(data / "videos" / "video_7.mp4", [noise(48, 64, seed=i) for i in range(12)], options=EXACT)
    (data / "annotations").mkdir()
    (data / "annotations" / "all.json").write_text(json.dumps({"video_7": VIDEO}))
    (data / "cut_frame_mapping_valid.json").write_text(json.dumps({"video_7": 8}))
    (video,) = ActivationStore.open(collect(replace(config, data=data))).videos
    assert video.n_frames == 8
    assert video.grid.frame_ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert video.split == "valid"


def test_a_larger_limit_holds_the_smaller_one_in_the_order_of_ids(clips: Path) -> None:
    names = [[v.video_id for v in choose_videos(clips, VideoChoice(limit=limit))] for limit in (4, 7, 100)]
    assert list(map(len, names)) == [4, 7, 11]
    assert set(names[0]) < set(names[1]) < set(names[2])
    assert names == [sorted(ids) for ids in names]


def test_a_file_of_ids(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("v07\nv02\n")
    assert {video.video_id for video in choose_videos(clips, VideoChoice.parse(str(path)))} == {"v02", "v07"}


def test_annotations_without_videos(tmp_path: Path) -> None:
    from tests.collect.data.test_perception_test import VIDEO

    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "all.json").write_text(json.dumps({"video_7": VIDEO}))
    with pytest.raises(UserError, match="has annotations but no videos"):
        choose_videos(tmp_path, VideoChoice())


def test_no_thread_is_left_behind(config: CollectConfig) -> None:
    collect(config)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("decode", "store-writer"))]


def test_tokens_on_tracks_and_their_places(tiny_world: Path, config: CollectConfig) -> None:
    """Which rows are stored is the choice of `choose_tokens`, and what is in them is what a full store has there."""
    all_config = replace(config, data=tiny_world, select="3", frames="4", sites=("resid/1",))
    full = ActivationStore.open(collect(all_config))
    few = ActivationStore.open(collect(replace(all_config, out=config.out / "few", tokens="tracks")))
    full.require_whole_grids()
    with pytest.raises(UserError, match="whole grids are needed"):
        few.require_whole_grids()
    dataset = load_dataset(tiny_world)
    assert 0 < few.n_tokens < full.n_tokens
    for video in few.videos:
        expected = on_tracks(video.grid, dataset.video(video.video_id).tracks)
        assert video.ranks is not None
        assert np.array_equal(video.ranks, np.flatnonzero(expected))
        rows = full.rows_of(video.video_id)
        whole = full.read("resid/1", rows.start, rows.stop)
        assert torch.equal(few.read("resid/1", video.row_start, video.row_stop), whole[video.ranks])
        assert np.array_equal(few.coords(video.row_start, video.row_stop)[:, 1:], video.grid.coords()[video.ranks])


def test_every_second_time_step(config: CollectConfig, finished: Path) -> None:
    full = ActivationStore.open(finished)
    half = ActivationStore.open(collect(replace(config, tokens="every:2")))
    half.require_whole_grids()
    assert half.n_tokens == full.n_tokens // 2
    for video in half.videos:
        rows = full.rows_of(video.video_id)
        whole = full.read("resid/1", rows.start, rows.stop).reshape(N_FRAMES, 16, -1)
        part = half.read("resid/1", video.row_start, video.row_stop).reshape(N_FRAMES // 2, 16, -1)
        assert torch.equal(part, whole[::2])
        assert np.array_equal(video.grid.frame_ids, full.videos[video.index].grid.frame_ids[::2])
