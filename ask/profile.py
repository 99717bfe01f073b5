"""The site profile: where the answer reads the video.

The residual of all visual tokens at a site is replaced by one vector, their mean over the evaluated videos. How far the
answer margin falls is how much of the video had not been read before that site. If the answer has already been read
before a site, no latent there can matter, whatever it fires on. So the profile comes before any SAE, and picks its
site.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ask.answers import answers
from ask.baselines import kinds_of
from ask.byte_cache import ByteCache
from ask.cases import Case, Clips, build_case, embed_items, packing_works
from ask.config import ProfileConfig
from ask.inference import FloatArray, pooled_interval
from ask.packing import Asked, Sequences, letter_logits, run_to
from ask.questions import N_OPTIONS, Item, items_of, manifest_hash, sample_items
from ask.tables import PROFILE
from collect.artefact.folder import write_table
from collect.artefact.lock import writing
from collect.artefact.run_data import annotations_hash, videos_hash
from collect.artefact.stage import begin_or_resume, write_summary
from collect.data.perception_test import Dataset, load_dataset
from collect.data.split import held_out_ids
from collect.printable import Lines
from collect.video.sampling import FrameSampling
from collect.vlm import Prefix, VideoVlm, load_vlm
from collect.vlm.sites import parse_site

logger = logging.getLogger(__name__)

STAGE = "profile"
TABLE_NAME = "profile.parquet"
IGNORED = ("device", "batch_size", "out", "data", "model")
"""Arguments that a resumed run may change; data and model are compared by content instead."""
KEPT_SHARE = 0.5
"""Share of the projector's fall that the picked site must keep."""
FIRST_SITE = "projector"


def run_profile(config: ProfileConfig) -> Path:
    """Profile the sites of a model with a dataset's questions, and pick the site for the SAE.

    The questions come from the train videos, so that the held-out videos stay unseen by this choice too.

    Returns:
        `OUT/profile/`, with profile.parquet, summary.json (`site`, the pick) and config.json.

    Raises:
        UserError: the data or the model cannot be used, the folder was begun with other arguments, or another process
            is writing it.
    """
    folder = config.out / STAGE
    with writing(folder):
        dataset = load_dataset(config.data)
        vlm = load_vlm(config.model, dtype=config.dtype, device=config.device)
        items = _items(dataset, config)
        sites = profiled_sites(vlm, config.sites)
        asked = [dataset.video(video_id) for video_id in _ordered(items)]
        inputs = {
            "items": manifest_hash(items),
            "model": vlm.fingerprint,
            "data": videos_hash(asked),
            "annotations": annotations_hash(dataset.videos),
        }
        paths = {"run": config.out, "data": config.data}
        # Annotations other than the questions do not matter here.
        if begin_or_resume(folder, STAGE, config, inputs, ignore=IGNORED, recorded=("annotations",), paths=paths):
            return folder
        frames = FrameSampling.parse(config.frames) if config.frames else FrameSampling(n=vlm.default_frames)
        table = profile(vlm, dataset, items, sites, frames, config.seed)
        write_table(folder / TABLE_NAME, table, PROFILE)
        site = pick_site(table)
        write_summary(folder, {"site": site, "n_items": len(items)}, [TABLE_NAME])
    logger.info("%s\npicked site: %s", Lines(describe(table)), site)
    return folder


def _items(dataset: Dataset, config: ProfileConfig) -> tuple[Item, ...]:
    videos = [video for video in dataset.videos if video.path is not None]
    held_out = held_out_ids((video.video_id, video.split) for video in videos)
    items = items_of(dataset, config.tasks, held_out, {video.video_id for video in videos})
    return sample_items([item for item in items if not item.held_out] or items, config.items, config.seed)


def profiled_sites(vlm: VideoVlm, sites: Sequence[str]) -> tuple[str, ...]:
    """Return the sites to profile in the order of depth: always the projector, and every resid/i if none is named.

    Raises:
        UserError: the model has no such site.
    """
    wanted = set(sites) or {f"resid/{layer}" for layer in range(vlm.n_layers)}
    for site in wanted:
        vlm.resumable(site)
    return (FIRST_SITE, *(site for site in vlm.sites() if site in wanted and site != FIRST_SITE))


def profile(
    vlm: VideoVlm, dataset: Dataset, items: Sequence[Item], sites: Sequence[str], frames: FrameSampling, seed: int
) -> pd.DataFrame:
    """Return profile.parquet.

    Args:
        vlm: the model.
        dataset: the videos.
        items: the questions to ask.
        sites: sites in the order of depth, the projector first.
        frames: which frames of a video make its clip.
        seed: seed of the bootstrap.
    """
    by_video = {video_id: [item for item in items if item.video_id == video_id] for video_id in _ordered(items)}
    first, own = next(iter(by_video.items()))
    # Both passes need every clip; as many as fit stay in memory.
    clips = Clips(vlm, dataset.video, frames)
    prefixes = ByteCache(clips.__getitem__, _n_bytes)
    model = Asked.at(vlm, FIRST_SITE)
    packed = packing_works(model, prefixes[first], own)
    mean, n_tokens = {site: torch.zeros(vlm.d_model, dtype=torch.float64) for site in sites}, 0
    for video_id in tqdm(clips.in_turn(list(by_video)), total=len(by_video), desc="mean residuals", unit="video"):
        residuals = vlm.visual_residuals([prefixes[video_id]], sites)
        for site in sites:
            mean[site] += residuals[site][0].double().sum(dim=0).cpu()
        n_tokens += residuals[sites[0]].shape[1]
    found: dict[str, list[dict[str, float]]] = {site: [] for site in ("", *sites)}
    with tqdm(by_video.items(), desc="site profile", unit="video") as progress:
        for video_id, own in progress:
            at = run_to(vlm, embed_items(vlm, prefixes[video_id], own, packed=packed), sites)
            case = build_case(model.to(sites[0]), at[sites[0]], own)
            found[""] += _scores(case, case.logits, case.mass)
            for site in sites:
                hidden = replaced(at[site], (mean[site] / n_tokens).to(case.sequences.hidden))
                with torch.no_grad():
                    logits, mass = letter_logits(model.to(site), at[site], hidden)
                found[site] += _scores(case, *(x[0].unflatten(0, (-1, N_OPTIONS)) for x in (logits, mass)))
    asked = [item for own in by_video.values() for item in own]
    return _table(asked, sites, vlm.n_layers, found, seed)


def replaced(seq: Sequences, mean: Float[Tensor, " d_model"]) -> Float[Tensor, "row token d_model"]:
    """Replace every visual token's residual by one vector."""
    return seq.hidden.index_copy(1, seq.visual_positions, mean.expand(len(seq.hidden), len(seq.visual_positions), -1))


def _scores(
    case: Case, logits: Float[Tensor, "item order letter"], mass: Float[Tensor, "item order"]
) -> list[dict[str, float]]:
    found = answers(logits, mass, case.correct, case.values)
    return [
        {"margin": float(margin), "accuracy": float(accuracy)}
        for margin, accuracy in zip(found.margin, found.accuracy, strict=True)
    ]


def _table(
    items: Sequence[Item],
    sites: Sequence[str],
    n_layers: int,
    found: dict[str, list[dict[str, float]]],
    seed: int,
) -> pd.DataFrame:
    place = {item.item_id: number for number, item in enumerate(items)}
    columns = {site: pd.DataFrame(scores) for site, scores in found.items()}
    rows: list[dict[str, Any]] = []
    for kind, counting, group in kinds_of(items):
        own = [place[item.item_id] for item in group]
        videos = [item.video_id for item in group]
        before = columns[""].iloc[own]
        first_fall = 0.0
        for site in sites:
            after = columns[site].iloc[own]
            falls: FloatArray = (before["margin"] - after["margin"]).to_numpy(dtype=np.float64)
            fall = float(falls.mean())
            first_fall = fall if site == sites[0] else first_fall
            low, high = pooled_interval(falls, videos, np.random.default_rng(seed))
            rows.append(
                {
                    "site": site,
                    "depth": parse_site(site, n_layers).layers_before,
                    "kind": kind,
                    "counting": counting,
                    "n_items": len(group),
                    "n_videos": len(set(videos)),
                    "accuracy": float(before["accuracy"].mean()),
                    "accuracy_replaced": float(after["accuracy"].mean()),
                    "margin": float(before["margin"].mean()),
                    "margin_replaced": float(after["margin"].mean()),
                    "fall": fall,
                    "fall_low": low,
                    "fall_high": high,
                    "fall_share": fall / first_fall if first_fall > 0 else None,
                }
            )
    return pd.DataFrame(rows, columns=PROFILE.names)


def pick_site(table: pd.DataFrame) -> str:
    """Return the latest site that keeps half of the projector's fall in the margin of all counting questions.

    The fall must also be beyond chance there: its 95 % interval over videos lies above zero. If that holds at no site,
    the model does not use the video: the projector is returned, and a warning is logged.
    """
    rows = table[table["kind"] == "all counting"].sort_values("depth", kind="stable")
    good = rows[(rows["fall_share"] >= KEPT_SHARE) & (rows["fall_low"] > 0)]
    if good.empty:
        logger.warning(
            "replacing the visual tokens costs no margin beyond chance at any site: counts are not read off the video"
        )
        return FIRST_SITE
    return str(good["site"].iloc[-1])


def describe(table: pd.DataFrame) -> str:
    """The profile as text: a row per site, with the margin after replacing the visual tokens and the share kept."""
    rows = table[table["kind"] == "all counting"]
    share = rows["fall_share"].astype(float)
    text = pd.DataFrame(
        {
            "site": rows["site"],
            "margin": rows["margin"].map("{:+.2f}".format),
            "replaced": rows["margin_replaced"].map("{:+.2f}".format),
            "fall": rows["fall"].map("{:+.2f}".format),
            "of projector's": share.map(lambda value: "-" if np.isnan(value) else f"{value:.0%}"),
        }
    )
    return text.to_string(index=False)


def _n_bytes(prefix: Prefix) -> int:
    return 0 if prefix.features is None else prefix.features.nbytes


def _ordered(items: Sequence[Item]) -> list[str]:
    return list(dict.fromkeys(item.video_id for item in items))
