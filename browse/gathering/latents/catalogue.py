"""The shard of all latents of an SAE: one row each, with what one sorts and filters by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32

from browse.gathering.latents.columns import COLUMNS, Shown, unknown
from browse.gathering.media_names import still_name
from browse.gathering.opened import Effects, OpenedSae
from browse.names import part_of
from browse.shards import Shard
from features.activity import measure_activity

THUMBS_UP_TO = 20_000
"""Latents of an SAE up to which each row names a picture; with more, the names alone would take megabytes."""


def latents_shard(sae: OpenedSae) -> Shard:
    """The shard `S/latents`."""
    table = catalogue_rows(sae)
    columns: dict[str, Any] = {}
    described: list[dict[str, object]] = []
    for shown in [*COLUMNS, *_others(table)]:
        if shown.name not in table:
            continue
        columns[shown.name] = shown.store(_plain(table[shown.name]))
        described.append(shown.described())
    effects = sae.effects
    subjects: list[str] = []
    if effects is not None:
        by_subject = effects.tables["latent_subjects"]
        subjects = sorted(set(by_subject.loc[by_subject["scope"] == "subject", "name"]))
    meta = {
        "sae": sae.name,
        "baseline": sae.is_baseline,
        "columns": described,
        "subjects": subjects,
        "labels": _labels(table),
        "latents_per_shard": LATENTS_PER_SHARD,
    }
    return Shard(columns=columns, meta=meta)


LATENTS_PER_SHARD = 32
"""Latents that one shard `S/latent/K` is about."""


def catalogue_rows(sae: OpenedSae) -> pd.DataFrame:
    """What is known about every latent, one row each."""
    if sae.is_baseline:
        activity = measure_activity(sae.codes, sae.run.videos)
        names = [shown.name for shown in COLUMNS if hasattr(activity, shown.name)]
        table = pd.DataFrame({name: getattr(activity, name) for name in names})
        table.insert(0, "latent", np.arange(len(table)))
        table["is_dead"] = table["n_tokens_active"] == 0
    else:
        table = sae.tables["catalogue"].copy()
        if "also" in table:
            table["also"] = [None if also is None else ", ".join(map(str, also)) for also in table["also"]]
    if sae.effects is not None:
        table = table.merge(effect_rows(sae.effects), on="latent", how="left")
    decoder = sae.decoder
    if decoder is not None and len(decoder) == len(table):
        table[["map_x", "map_y"]] = principal_plane(decoder)
    if len(table) <= THUMBS_UP_TO:
        table["thumb"] = _thumbs(sae, len(table))
    return table


def effect_rows(effects: Effects) -> pd.DataFrame:
    """Per latent that was edited or estimated: its largest effect on train videos, and what was found on held-out ones.

    Effects that were run come before estimates, and larger ones before smaller ones.
    """
    tables = effects.tables
    rows = tables["latent_subjects"]
    rows = rows[rows["scope"] == "subject"]
    size = rows["delta_margin"].where(rows["delta_margin"].notna(), rows["attribution"])
    rows = rows.assign(effect=size, order=-size.abs().fillna(-1.0), is_run=rows["delta_margin"].isna())
    rows = rows.sort_values(["latent", "is_run", "order", "name"], kind="stable").drop_duplicates("latent")
    found = pd.DataFrame(
        {
            "latent": rows["latent"].to_numpy(),
            "effect": rows["effect"].to_numpy(),
            "effect_subject": rows["name"].to_numpy(),
            "effect_method": rows["method"].to_numpy(),
            "effect_low": rows["delta_margin_low"].to_numpy(),
            "effect_high": rows["delta_margin_high"].to_numpy(),
            "effect_other": rows["delta_margin_other"].to_numpy(),
        }
    )
    screen = tables["screen"]
    attributed = pd.DataFrame({"latent": screen["latent"], "attribution": screen["attribution_train"]})
    found = attributed.merge(found, on="latent", how="outer")
    return found.merge(_held_out(effects), on="latent", how="left")


def _held_out(effects: Effects) -> pd.DataFrame:
    """The largest held-out ablation of each latent that is a target by itself."""
    claims = effects.tables["claims"]
    ablated = claims[claims["operation"] == "ablate"]
    of = {name: target.latents[0] for name, target in effects.targets.items() if not target.is_set}
    ablated = ablated[ablated["target"].isin(list(of))]
    found = pd.DataFrame(
        {
            "latent": np.array([of[str(target)] for target in ablated["target"]], dtype=np.int64),
            "effect_held_out": ablated["delta_margin"].to_numpy(),
            "effect_q": ablated["q_value"].to_numpy(),
            "claim": ablated["claim"].to_numpy(),
        }
    )
    order = np.argsort(-found["effect_held_out"].abs().to_numpy(dtype=np.float64), kind="stable")
    return found.iloc[order].drop_duplicates("latent")


def principal_plane(decoder: Float32[np.ndarray, "latent d_out"]) -> Float[np.ndarray, "latent 2"]:
    """The two first principal components of the decoder directions, each of norm 1.

    Signs are those with which the largest coordinate of each component is positive.
    """
    norm = np.linalg.norm(decoder, axis=1, keepdims=True)
    unit = decoder / np.maximum(norm, 1e-12)
    centred = unit - unit.mean(axis=0)
    _, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    plane = vectors[:, : -3 if vectors.shape[1] > 2 else None : -1][:, :2]
    plane = plane * np.sign(plane[np.abs(plane).argmax(axis=0), range(plane.shape[1])])
    found = centred.astype(np.float64) @ plane
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def _thumbs(sae: OpenedSae, n_latents: int) -> list[str | None]:
    thumbs: list[str | None] = [None] * n_latents
    moments = sae.moments(range(n_latents))
    top = moments[(moments["group"] == "top") & (moments["rank"] == 0)]
    for latent, video_id, t in zip(top["latent"], top["video_id"], top["t"], strict=True):
        thumbs[int(latent)] = still_name(str(video_id), int(t))
    return thumbs


def _labels(table: pd.DataFrame) -> list[dict[str, object]]:
    """Labels that are a latent's best one, the most frequent first."""
    if "top_label" not in table:
        return []
    known = table[table["top_label"].notna()]
    counts = known.groupby(["top_label", "top_label_kind"]).agg(n=("latent", "size"), named=("labelled", "sum"))
    rows = [
        {"label": str(label), "kind": str(kind), "n_latents": int(row["n"]), "n_named": int(row["named"])}
        for (label, kind), row in counts.iterrows()
    ]
    rows = sorted(rows, key=lambda row: (-int(str(row["n_latents"])), str(row["label"]), str(row["kind"])))
    return [{**row, "key": label_key(str(row["label"]), str(row["kind"]))} for row in rows]


def label_key(label: str, kind: str) -> str:
    """The name under which a label's shards are found; two kinds may have the same label."""
    return part_of(f"{kind}: {label}")


def _others(table: pd.DataFrame) -> list[Shown]:
    known = {shown.name for shown in COLUMNS}
    found = [unknown(str(name), _plain(table[name])) for name in table if name not in known]
    return [shown for shown in found if shown is not None]


def _plain(values: pd.Series) -> Any:
    """A column's values: an array of numbers or truth values, or a list."""
    if values.dtype.kind in "fiub":
        return values.to_numpy()
    return [None if value is None or value != value else value for value in values.tolist()]
