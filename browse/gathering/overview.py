"""The shards `run` and `videos`: what the run holds, and which videos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from browse.gathering.opened import STAGES, OpenedRun
from browse.names import BASELINE_SUFFIX, part_of
from browse.shards import Shard, choices, flags, floats, integers, texts
from collect.process.provenance import installed_versions

DEMO_NOTE = (
    "This is the demo: a small synthetic world, and a tiny model that was trained to count in it. What is found here "
    "shows that the method finds what is there, and nothing about video models."
)


def run_shard(run: OpenedRun) -> Shard:
    """The shard `run`."""
    videos = run.videos
    model = {} if run.store is None else run.store.model
    meta = {
        "name": run.folder.resolve().name,
        "saes": [_sae(run, name) for name in run.sae_names],
        "model": {"name": _model_name(model), **{key: model.get(key) for key in ("family", "n_layers", "d_model")}},
        "note": DEMO_NOTE if (run.folder / "data" / "truth").is_dir() else None,
        "stages": [{"stage": stage, "state": run.state(stage)} for stage in STAGES],
        "n_videos": len(videos),
        "n_held_out": len(run.held_out),
        "has_videos": any(run.video_path(video.video_id) is not None for video in videos),
        "has_media": any(run.has_media(video.video_id) for video in videos),
        "has_annotations": bool(run.annotations),
        "data_missing": run.data_missing,
        "version": installed_versions()["video-sae"],
        "served": False,
    }
    return Shard(meta=meta)


def _model_name(model: Mapping[str, Any]) -> str | None:
    """The model's name on the hub, or that of its folder: where that lies is nobody else's business."""
    name = model.get("name")
    if not isinstance(name, str):
        return None
    return Path(name).name if Path(name).is_absolute() or name.startswith(".") else name


def _sae(run: OpenedRun, name: str) -> Mapping[str, Any]:
    sae = run.sae(name)
    assert sae is not None, "the names are those of the run"
    facts = run.sae_facts(name)
    key = part_of(name)
    return {
        "key": key,
        "name": name,
        "features": sae.has_features,
        "n_latents": sae.n_latents if sae.has_features else facts.get("d_sae"),
        "has_effects": sae.has_effects,
        "has_annotations": sae.has_features and bool(len(sae.tables["associations"])),
        "baseline": f"{key}{BASELINE_SUFFIX}" if sae.baseline is not None else None,
        "states": {stage: run.state(stage, name) for stage in ("train", "features", "steer")},
        **{part: facts.get(part) for part in ("site", "architecture", "d_in", "d_sae", "k")},
    }


def videos_shard(run: OpenedRun) -> Shard:
    """The shard `videos`: one row per collected video."""
    videos = run.videos
    annotated = [run.annotations.get(video.video_id) for video in videos]
    columns = {
        "id": texts([video.video_id for video in videos]),
        "key": texts([part_of(video.video_id) for video in videos]),
        "split": choices(["held_out" if video.video_id in run.held_out else "train" for video in videos]),
        "n_frames_model": integers([video.grid.n_t for video in videos]),
        "duration_s": floats([video.n_frames / video.frame_rate for video in videos]),
        "width": integers([video.width for video in videos]),
        "height": integers([video.height for video in videos]),
        "n_tracks": integers([None if video is None else len(video.tracks) for video in annotated]),
        "n_actions": integers([None if video is None else len(video.actions) for video in annotated]),
        "n_questions": integers([None if video is None else len(video.questions) for video in annotated]),
        "has_file": flags([run.video_path(video.video_id) is not None for video in videos]),
    }
    return Shard(columns=columns)
