"""The stage `plan`: what a collection will take, before anything is spent.

Tokens and bytes follow from the model's sizes and the videos; time follows from operations and a GPU's peak speed times
the share of it that is assumed to be reached, or from speeds that a probe measures here. The table states what is
assumed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from collect.artefact.folder import write_atomic
from collect.plan.config import PlanConfig
from collect.plan.cost import (
    DECODED_PIXELS_PER_S,
    DTYPE_BYTES,
    FLOAT32_SHARE,
    GPUS,
    NOTHING,
    ClipCost,
    clip_cost,
    gpu_seconds,
)
from collect.plan.data import Collection, read_collection
from collect.plan.files import read_sizes
from collect.plan.model import ModelSizes
from collect.video.sampling import FrameSampling
from collect.vlm.families.registry import family_class

GROWTH = (1, 10, 100)
HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All numbers of a plan."""

    model: Mapping[str, Any]
    collection: Mapping[str, Any]
    per_video: Mapping[str, float]
    to_keep_up: Mapping[str, float]
    """What one GPU needs so that it never waits."""
    growth: tuple[Mapping[str, Any], ...]
    assumptions: tuple[str, ...]
    measured: Mapping[str, Any] | None


def plan(config: PlanConfig) -> str:
    """Estimate what a collection takes.

    Returns:
        A table for a person; the same numbers go to the file of `--json`, if given.

    Raises:
        UserError: there is no such model, site, folder or split, or (with a probe) the model cannot be run.
    """
    sizes = read_sizes(config.model)
    collection = read_collection(config.data, config.select)
    if config.videos is not None:
        collection = collection.scaled_to(config.videos)
    found = estimate(config, sizes, collection)
    if config.json is not None:
        write_atomic(config.json, json.dumps(asdict(found), indent=2) + "\n")
    return _table(config, found)


def estimate(config: PlanConfig, sizes: ModelSizes, collection: Collection) -> Plan:
    """Do the arithmetic, after a probe if one is asked for."""
    sampling = _sampling(config, sizes)
    total, pixels = NOTHING, 0.0
    for kind, n in collection.kinds.items():
        n_frames = sampling.n_of(kind.seconds)
        cost = clip_cost(sizes, config.sites, config.dtype, n_frames=n_frames, height=kind.height, width=kind.width)
        total += _times(cost, n)
        pixels += n * kind.n_frames * kind.height * kind.width
    n_videos = collection.n_videos

    measured = None
    seconds = gpu_seconds(total.operations, config.gpu, config.dtype, config.utilisation)
    decode_s = pixels / DECODED_PIXELS_PER_S
    if config.probe:
        from collect.plan.probe import measure

        measured = measure(sizes, config.sites, config.dtype, sampling, collection.examples)
        seconds = total.operations / measured.operations_per_s
        if measured.decoded_pixels_per_s is not None:
            decode_s = pixels / measured.decoded_pixels_per_s
        decode_s += measured.preprocess_s * n_videos
    weights = sizes.parameters * DTYPE_BYTES[config.dtype]
    return Plan(
        model={
            "name": sizes.name,
            "family": sizes.family,
            "n_layers": sizes.decoder.n_layers,
            "d_model": sizes.decoder.d_model,
            "parameters": sizes.parameters,
            "weights_bytes": weights,
            "gpus_for_weights": -(-weights // int(0.8 * GPUS[config.gpu][1])),
        },
        collection={"text": collection.text, "n_videos": n_videos, "frames": str(sampling), "sites": config.sites},
        per_video={
            "frames": total.n_frames / n_videos,
            "visual_tokens": total.visual_tokens / n_videos,
            "bytes": total.bytes / n_videos,
            "operations": total.operations / n_videos,
            "gpu_seconds": seconds / n_videos,
            "decode_core_seconds": decode_s / n_videos,
        },
        to_keep_up={"cores": decode_s / seconds, "write_bytes_per_s": total.bytes / seconds},
        growth=tuple(_grown(config, factor, n_videos, total, seconds, decode_s) for factor in GROWTH),
        assumptions=_assumptions(config, measured is not None, measured is not None and bool(collection.examples)),
        measured=None if measured is None else asdict(measured),
    )


def _sampling(config: PlanConfig, sizes: ModelSizes) -> FrameSampling:
    """The frames of a clip, by default those that `collect` takes."""
    if config.frames is not None:
        return FrameSampling.parse(config.frames)
    return FrameSampling(n=family_class(sizes.name, sizes.family).default_frames)


def _times(cost: ClipCost, n: float) -> ClipCost:
    return ClipCost(
        n_frames=round(cost.n_frames * n),
        tower_tokens=round(cost.tower_tokens * n),
        visual_tokens=round(cost.visual_tokens * n),
        operations=cost.operations * n,
        bytes=cost.bytes * n,
    )


def _grown(
    config: PlanConfig, factor: int, n_videos: int, total: ClipCost, seconds: float, decode_s: float
) -> dict[str, Any]:
    gpu_hours, core_hours = factor * seconds / HOUR_S, factor * decode_s / HOUR_S
    occupied = max(gpu_hours, core_hours / config.cores_per_gpu)  # the slower one decides how long GPUs are held
    grown: dict[str, Any] = {
        "factor": factor,
        "n_videos": factor * n_videos,
        "visual_tokens": factor * total.visual_tokens,
        "bytes": factor * total.bytes,
        "gpu_hours": gpu_hours,
        "decode_core_hours": core_hours,
        "occupied_gpu_hours": occupied,
        "wall_hours": {str(n): occupied / n for n in config.gpus},
    }
    if config.price_per_gpu_hour is not None:
        grown["price"] = occupied * config.price_per_gpu_hour
    return grown


def _assumptions(config: PlanConfig, is_measured: bool, is_decoding_measured: bool) -> tuple[str, ...]:
    said: list[str] = []
    if not is_measured:
        peak = GPUS[config.gpu][0] * (FLOAT32_SHARE if config.dtype == "float32" else 1.0) / 1e12
        said.append(
            f"{config.gpu}: {config.utilisation:.0%} of its peak of {peak:g} Tera-operations a second is reached"
        )
    if not is_decoding_measured:
        said.append(f"a core decodes {DECODED_PIXELS_PER_S / 1e6:g} million pixels a second, and decodes whole videos")
    said.append(f"{config.cores_per_gpu} cores per GPU decode meanwhile, and the slower of both decides the time")
    said.append("all GPUs have the same to do, and the disk is fast enough")
    said.append(
        "growing means that many times the videos; that many times the frames of one site cost at least as much"
    )
    return tuple(said)


def _table(config: PlanConfig, found: Plan) -> str:
    model, each, keep = found.model, found.per_video, found.to_keep_up
    device = f"{config.gpu} GPU" if found.measured is None else f"device ({found.measured['device']})"
    lines = [
        (
            f"model       {model['name']} ({model['family']}): {model['n_layers']} layers, "
            f"d_model {model['d_model']:,}, {_short(model['parameters'])} weights, "
            f"{_bytes(model['weights_bytes'])} in {config.dtype}"
        ),
        f"videos      {found.collection['n_videos']:,}: {found.collection['text']}",
        (
            f"clip        frames {found.collection['frames']} -> {each['frames']:,.1f} frames, "
            f"{each['visual_tokens']:,.0f} visual tokens; sites {', '.join(config.sites)}"
        ),
        (
            f"per video   {_short(each['operations'])} operations, {each['gpu_seconds']:.3g} s of one {device}, "
            f"{each['decode_core_seconds']:.3g} s of one core, {_bytes(each['bytes'])} stored"
        ),
        (
            f"keep up     each {device} needs {keep['cores']:.1f} cores that decode, and "
            f"{_bytes(keep['write_bytes_per_s'])}/s of disk"
        ),
    ]
    if model["gpus_for_weights"] > 1 and found.measured is None:
        lines.append(
            f"memory      the weights do not fit one {config.gpu}: spread them over {model['gpus_for_weights']} or more"
        )
    if found.measured is not None:
        lines.append(_measured_line(config, found.measured))
    heads = ["growth", "videos", "tokens", "store", "GPU busy", "cores busy", *(f"on {n}" for n in config.gpus)]
    rows = [
        [
            f"{row['factor']}x",
            f"{row['n_videos']:,}",
            _short(row["visual_tokens"]),
            _bytes(row["bytes"]),
            f"{row['gpu_hours']:,.1f} h",
            f"{row['decode_core_hours']:,.1f} h",
            *(_hours(hours) for hours in row["wall_hours"].values()),
            *([f"{row['price']:,.2f}"] if "price" in row else []),
        ]
        for row in found.growth
    ]
    if config.price_per_gpu_hour is not None:
        heads.append("price")
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines.append("")
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [heads, *rows]]
    lines.append("")
    lines += [f"assumed: {text}" for text in found.assumptions]
    return "\n".join(lines)


def _measured_line(config: PlanConfig, measured: Mapping[str, Any]) -> str:
    share = measured["operations_per_s"] / GPUS[config.gpu][0]
    line = (
        f"measured    {measured['n_clips']} clips on {measured['device']}: "
        f"{_short(measured['operations_per_s'])} operations a second, {share:.1%} of the peak of one {config.gpu}; "
        f"{measured['preprocess_s']:.3g} s of preprocessing a clip"
    )
    if abs(measured["tokens_over_expected"] - 1) > 1e-9:
        line += f"; {measured['tokens_over_expected']:.3f} times the tokens that the plan expects"
    return line


def _short(number: float | int) -> str:
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


def _bytes(number: float | int) -> str:
    return f"{_short(number)}B" if number >= 1e3 else f"{number:.0f} B"


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.3g} min"
    return f"{hours:.3g} h" if hours < 48 else f"{hours / 24:.3g} d"
