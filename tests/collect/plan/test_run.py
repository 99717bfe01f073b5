import json
from pathlib import Path
from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from collect.errors import UserError
from collect.plan.config import PlanConfig
from collect.plan.cost import clip_cost, gpu_seconds
from collect.plan.data import read_collection
from collect.plan.files import read_sizes
from collect.plan.run import plan
from collect.video.decode import decode_clip
from collect.vlm import load_vlm
from tests.collect.video_files import EXACT, noise, write_video

PLM = "facebook/Perception-LM-1B"


def numbers(tmp_path: Path, **arguments: Any) -> dict[str, Any]:
    path = tmp_path / "plan.json"
    plan(PlanConfig(**{"model": PLM, "json": path} | arguments))
    return json.loads(path.read_text())


@pytest.mark.parametrize("site", ["projector", "resid/0", "resid/2"])
def test_operations_are_those_that_torch_counts(tiny_vlm: Path, tmp_path: Path, site: str) -> None:
    vlm = load_vlm(str(tiny_vlm), device="cpu", attn_implementation="eager")
    video = write_video(tmp_path / "v.mp4", [noise(48, 64, seed=i) for i in range(8)], options=EXACT)
    prefix = vlm.prefix(decode_clip(video, "v", 8))
    with FlopCounterMode(display=False) as counter:
        vlm.visual_residuals([prefix], [site])
    sizes = read_sizes(str(tiny_vlm))
    cost = clip_cost(sizes, [site], "float32", n_frames=8, height=48, width=64)
    assert cost.visual_tokens == prefix.grid.n_tokens
    n_layers = 0 if site == "projector" else int(site.partition("/")[2]) + 1
    # Eager attention computes both halves of the causal square.
    other_half = n_layers * 2 * cost.visual_tokens**2 * sizes.decoder.d_model
    assert counter.get_total_flops() == pytest.approx(cost.operations + other_half, rel=0.05)


def test_tokens_and_bytes_by_hand(tmp_path: Path) -> None:
    found = numbers(tmp_path, frames="32", sites=("resid/8", "resid/3"))
    assert found["collection"]["n_videos"] == 5900
    # 32 frames of 256 tokens; two sites of 2,048 numbers of 2 bytes, and 16 bytes of coordinates.
    assert found["per_video"]["visual_tokens"] == 32 * 256 == 8192
    assert found["per_video"]["bytes"] == 8192 * (2 * 2048 * 2 + 16)
    assert found["growth"][0]["bytes"] == 5900 * 8192 * (2 * 2048 * 2 + 16)


@pytest.mark.parametrize(("model", "n_frames"), [(PLM, 16), ("Qwen/Qwen2.5-VL-72B-Instruct", 32)])
def test_a_clip_has_the_frames_that_collect_takes(tmp_path: Path, model: str, n_frames: int) -> None:
    assert numbers(tmp_path, model=model)["collection"]["frames"] == str(n_frames)


def test_operations_by_hand(tmp_path: Path) -> None:
    found = numbers(tmp_path, frames="32", sites=("resid/8",))
    embedding = 2 * 32 * 1024 * 3 * 14**2 * 1024
    tower = embedding + 23 * (2 * 32 * 1024 * (4 * 1024**2 + 2 * 1024 * 4096) + 4 * 32 * 1024**2 * 1024)
    projector = 2 * 32 * 1024 * (1024 * 2048 + 2048**2)
    layer = 2 * 8192 * (2048 * 64 * 2 * 40 + 3 * 2048 * 8192) + 2 * 8192**2 * 2048
    assert found["per_video"]["operations"] == tower + projector + 9 * layer
    assert found["per_video"]["gpu_seconds"] == pytest.approx((tower + projector + 9 * layer) / (0.4 * 989e12))


def test_growth_is_in_proportion_and_time_is_shared(tmp_path: Path) -> None:
    found = numbers(tmp_path, gpus=(1, 4), price_per_gpu_hour=3.0)
    one, ten, hundred = found["growth"]
    assert (ten["factor"], hundred["n_videos"]) == (10, 590_000)
    for name in ("visual_tokens", "bytes", "gpu_hours", "decode_core_hours", "price"):
        assert ten[name] == pytest.approx(10 * one[name])
        assert hundred[name] == pytest.approx(100 * one[name])
    assert one["wall_hours"]["1"] == pytest.approx(4 * one["wall_hours"]["4"])
    assert one["price"] == pytest.approx(3 * one["occupied_gpu_hours"])


def test_the_slower_of_model_and_decoding_decides(tmp_path: Path) -> None:
    few = numbers(tmp_path, cores_per_gpu=1)["growth"][0]
    many = numbers(tmp_path, cores_per_gpu=10_000)["growth"][0]
    assert few["occupied_gpu_hours"] == few["decode_core_hours"] > few["gpu_hours"]
    assert many["occupied_gpu_hours"] == many["gpu_hours"]


def test_deeper_sites_cost_more_and_vision_sites_no_decoder() -> None:
    sizes = read_sizes(PLM)

    def operations(*sites: str) -> float:
        return clip_cost(sizes, sites, "bfloat16", n_frames=8, height=720, width=1280).operations

    order = ["vision/0", "vision/22", "projector", "attn_out/0", "resid/0", "attn_out/1", "mlp_out/1", "resid/15"]
    costs = [operations(site) for site in order]
    assert costs == sorted(costs)
    assert len(set(costs)) == len(costs)
    assert operations("resid_pre/1") == operations("resid/0") == operations("mlp_out/0", "resid/0", "vision/3")


def test_vision_sites_store_the_towers_own_tokens() -> None:
    cost = clip_cost(read_sizes(PLM), ["vision/3"], "float16", n_frames=2, height=720, width=1280)
    assert cost.bytes == 2 * 1024 * (1024 * 2 + 16)


@pytest.mark.parametrize("site", ["resid/16", "vision/23", "resid", "projector/0", "resid/-1", "logits/3"])
def test_a_site_that_is_not_there(site: str) -> None:
    with pytest.raises(UserError, match=r"no site|no hook site"):
        plan(PlanConfig(model=PLM, sites=(site,)))


def test_float32_runs_at_half_the_speed() -> None:
    assert gpu_seconds(1e15, "a100", "float32", 0.5) == 2 * gpu_seconds(1e15, "a100", "float16", 0.5)
    assert gpu_seconds(312e12, "a100", "bfloat16", 1.0) == 1.0


def test_videos_of_a_folder_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i, n in enumerate((31, 31, 61)):
        write_video(tmp_path / "data" / f"v{i}.mp4", [noise(48, 64, seed=t) for t in range(n)])
    (tmp_path / "data" / "bad.mp4").write_bytes(b"no video")
    collection = read_collection(tmp_path / "data", None)
    assert sorted((kind.n_frames, n) for kind, n in collection.kinds.items()) == [(31, 2.0), (61, 1.0)]
    assert "1 videos that cannot be read are left out" in collection.text
    assert "bad.mp4 cannot be decoded as a video" in caplog.text
    # Two frames a second: one video of a second has 3, one of two seconds 5.
    found = numbers(tmp_path, data=tmp_path / "data", frames="2fps")
    assert found["per_video"]["frames"] == pytest.approx((3 + 3 + 5) / 3)
    assert numbers(tmp_path, data=tmp_path / "data", videos=300)["growth"][0]["n_videos"] == 300


def test_published_splits(tmp_path: Path) -> None:
    assert numbers(tmp_path, select="train")["collection"]["n_videos"] == 2184
    assert numbers(tmp_path, select="test,100")["collection"]["n_videos"] == 100
    with pytest.raises(UserError, match="published splits train, valid, test"):
        plan(PlanConfig(model=PLM, select="demo"))
    with pytest.raises(UserError, match="published splits"):
        plan(PlanConfig(model=PLM, select="ids.txt"))


def test_a_probe_measures_this_machine(tiny_vlm: Path, clips: Path, tmp_path: Path) -> None:
    found = numbers(tmp_path, model=str(tiny_vlm), data=clips, frames="8", dtype="float32", probe=True)
    measured = found["measured"]
    assert measured["tokens_over_expected"] == 1.0
    assert measured["n_clips"] == 4
    assert found["per_video"]["gpu_seconds"] == pytest.approx(
        found["per_video"]["operations"] / measured["operations_per_s"]
    )
    assert not any("peak" in text or "million pixels" in text for text in found["assumptions"])


def test_a_probe_without_data_times_a_blank_clip(tiny_vlm: Path, tmp_path: Path) -> None:
    found = numbers(tmp_path, model=str(tiny_vlm), frames="2", dtype="float32", probe=True)
    assert (found["measured"]["n_clips"], found["measured"]["decoded_pixels_per_s"]) == (1, None)
    assert any("million pixels" in text for text in found["assumptions"])


def test_the_table_says_what_is_assumed() -> None:
    table = plan(PlanConfig(model="Qwen/Qwen2.5-VL-72B-Instruct", gpus=(8, 512), price_per_gpu_hour=2.0))
    assert "on 8" in table
    assert "on 512" in table
    assert "price" in table
    assert "do not fit one h100: spread them over 3 or more" in table  # 141 GB in bfloat16, 64 GB of each
    assert "assumed: h100: 40% of its peak of 989" in table
    assert [line.split()[0] for line in table.splitlines() if "x " in line[:12]] == ["1x", "10x", "100x"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sites": ()}, "--sites must name"),
        ({"frames": "many"}, "does not say which frames"),
        ({"videos": 0}, "--videos must be at least 1"),
        ({"utilisation": 0.0}, "--utilisation is a share"),
        ({"gpus": (0,)}, "--gpus must name"),
        ({"cores_per_gpu": 0}, "--cores-per-gpu must be at least 1"),
        ({"price_per_gpu_hour": -1.0}, "must not be negative"),
        ({"price_per_gpu_hour": float("nan")}, "must not be negative nor without end, but is nan"),
        ({"price_per_gpu_hour": float("inf")}, "must not be negative nor without end, but is inf"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PlanConfig(**{"model": PLM} | changes)
