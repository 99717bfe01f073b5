"""Exemplars as moments: when a latent rises and falls in a video, from all of its activation and not only the top.

A *moment* is a run of consecutive time steps of one video in which the latent fires, cut wherever its activation rises
again after it fell; the activation at a time step is the largest of its patches. So every activation belongs to exactly
one moment, moments do not overlap, and each has one peak. Of every latent are kept

    top       the moments with the highest peaks, one per video
    q5 … q1   some of each fifth of its moments by peak, from the highest to the lowest
    random    moments in which tokens lie that are drawn from all at which it fires

each with the share of the latent's activation mass, the sum of its activations, that lies in the moment and in its
group. What is drawn depends on the seed and the latent alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float32, Float64, Int64
from scipy import sparse

from collect.artefact.table import column, table_schema
from collect.reading import VideoRecord
from features.activity import latent_blocks
from features.catalogue import SPLITS
from features.codes import Codes
from features.division import ALONE, Division

MOMENTS_NAME = "moments.parquet"
N_TOP = 8
N_FIFTH = 4
"""Moments that are kept of each fifth."""
N_RANDOM = 6
FIFTHS = ("q1", "q2", "q3", "q4", "q5")
"""From the fifth with the lowest peaks to the one with the highest."""
GROUPS = ("top", *FIFTHS[::-1], "random")
STREAM = 7
"""Tells these draws from the stage's others with the same seed."""
MOMENTS = table_schema(
    "Moments of each latent: at most 8 at the top, 4 of each fifth of all, and 6 at random.",
    column("latent", pa.int32(), "latent", least=0),
    column("group", pa.string(), "`top`, `q5` to `q1`, or `random`", among=GROUPS),
    column("rank", pa.int32(), "0 for the highest peak of the group", least=0),
    column("video_id", pa.string(), "video"),
    column("split", pa.string(), "`train` or `held_out`", among=SPLITS),
    column("t_first", pa.int32(), "first time step", least=0),
    column("t_last", pa.int32(), "last time step", least=0),
    column("start_s", pa.float64(), "start of the first time step", null=False),
    column("stop_s", pa.float64(), "end of the last time step", null=False),
    column("t", pa.int32(), "time step of the peak", least=0),
    column("row", pa.int32(), "row of the patch with the highest activation", least=0),
    column("col", pa.int32(), "column of this patch", least=0),
    column("activation", pa.float32(), "activation at the peak", null=False),
    column("n_tokens", pa.int64(), "tokens of the moment at which it fires", least=1),
    column("mass_share", pa.float64(), "share of the latent's activation mass that lies in the moment", null=False),
    column("group_n_moments", pa.int64(), "moments of the group, kept or not", least=1),
    column("group_n_tokens", pa.int64(), "tokens at which it fires in these moments", least=1),
    column("group_mass_share", pa.float64(), "share of the latent's activation mass that lies in these", null=False),
)
_OF_MOMENT = ("latent", "video", "t_first", "t_last", "t", "patch", "activation", "n_tokens")
_OF_GROUP = ("group_n_moments", "group_n_tokens", "group_mass_share")
_DRAWN = (*_OF_MOMENT, "group", "rank", "mass_share", *_OF_GROUP)


@dataclass(frozen=True, kw_only=True)
class StoredSteps:
    """Video, time step and patch of every token of the store, which holds whole grids."""

    row_start: Int64[np.ndarray, " video"]
    n_patches: Int64[np.ndarray, " video"]
    """Tokens of one time step."""

    @classmethod
    def of(cls, videos: Sequence[VideoRecord]) -> StoredSteps:
        """Those of some videos, in the order of the store."""
        assert all(video.ranks is None for video in videos), "moments need whole grids"
        return cls(
            row_start=np.array([video.row_start for video in videos], dtype=np.int64),
            n_patches=np.array([video.grid.n_rows * video.grid.n_cols for video in videos], dtype=np.int64),
        )


@dataclass(frozen=True, kw_only=True)
class Moments:
    """All moments of some latents, by latent and then in the order of the store."""

    latent: Int64[np.ndarray, " moment"]
    """Column of the codes that they were found in."""
    video: Int64[np.ndarray, " moment"]
    t_first: Int64[np.ndarray, " moment"]
    t_last: Int64[np.ndarray, " moment"]
    t: Int64[np.ndarray, " moment"]
    """Time step of the peak; of equal ones the first."""
    patch: Int64[np.ndarray, " moment"]
    """Patch of the peak within its time step, row by row; of equal ones the first."""
    activation: Float32[np.ndarray, " moment"]
    n_tokens: Int64[np.ndarray, " moment"]
    mass: Float64[np.ndarray, " moment"]


def find_moments(codes: Codes, videos: Sequence[VideoRecord], *, seed: int, division: Division = ALONE) -> pd.DataFrame:
    """The moments that are kept of each latent.

    Each latent is looked at by the process whose share it is in; every process gets the result.

    Returns:
        One row per moment and group, by latent, group (as in `GROUPS`) and rank: numbers only, `group` as index into
        `GROUPS` and `video` into `videos`; `describe_moments` turns them into the table.
    """
    steps = StoredSteps.of(videos)
    own = division.share_by_cost(codes.n_active())
    parts = [
        moments_of(codes.by_latent(latents), latents, steps, seed=seed)
        for latents in latent_blocks(codes, own, "moments")
    ]
    found = pd.concat(parts, ignore_index=True)
    return pd.DataFrame({name: division.join(found[name].to_numpy()) for name in found})


def moments_of(
    codes: sparse.csc_array, latents: Int64[np.ndarray, " latent"], steps: StoredSteps, *, seed: int
) -> pd.DataFrame:
    """The moments that are kept of some latents, from their activations [token, latent] on all tokens."""
    found = all_moments(codes, steps)
    ends = np.searchsorted(found.latent, np.arange(len(latents) + 1))
    kept: list[Int64[np.ndarray, " kept"]] = []
    groups: dict[str, list[np.ndarray]] = {name: [] for name in _DRAWN if name.startswith("group")}
    ranks: list[np.ndarray] = []
    shares: list[Float64[np.ndarray, " kept"]] = []
    for place, latent in enumerate(latents.tolist()):
        own = slice(int(ends[place]), int(ends[place + 1]))
        if own.start == own.stop:
            continue
        n_tokens, mass = found.n_tokens[own], found.mass[own]
        share = mass / mass.sum()
        rng = np.random.default_rng([seed, STREAM, latent])
        for group, (members, chosen) in enumerate(_draw(found.activation[own], found.video[own], n_tokens, rng)):
            if not len(chosen):
                continue
            kept.append(chosen + own.start)
            ranks.append(np.arange(len(chosen)))
            shares.append(share[chosen])
            for name, value in (
                ("group", group),
                ("group_n_moments", len(members)),
                ("group_n_tokens", int(n_tokens[members].sum())),
            ):
                groups[name].append(np.full(len(chosen), value, dtype=np.int64))
            groups["group_mass_share"].append(np.full(len(chosen), share[members].sum()))
    which = np.concatenate([np.empty(0, dtype=np.int64), *kept])
    columns: dict[str, np.ndarray] = {
        "latent": latents[found.latent[which]],
        "rank": np.concatenate([np.empty(0, dtype=np.int64), *ranks]),
        "mass_share": np.concatenate([np.empty(0), *shares]),
        **{
            name: np.concatenate([np.empty(0, dtype=np.float64 if name == "group_mass_share" else np.int64), *parts])
            for name, parts in groups.items()
        },
    }
    columns |= {name: getattr(found, name)[which] for name in _DRAWN if name not in columns}
    return pd.DataFrame({name: columns[name] for name in _DRAWN})


def _draw(
    peak: Float32[np.ndarray, " moment"],
    video: Int64[np.ndarray, " moment"],
    n_tokens: Int64[np.ndarray, " moment"],
    rng: np.random.Generator,
) -> list[tuple[Int64[np.ndarray, " member"], Int64[np.ndarray, " chosen"]]]:
    """Per group of `GROUPS`, all of its moments and those that are kept, from the highest peak to the lowest."""
    n = len(peak)
    falling = np.lexsort((np.arange(n), -peak))
    _, firsts = np.unique(video[falling], return_index=True)
    top = falling[np.sort(firsts)[:N_TOP]]
    place = np.empty(n, dtype=np.int64)
    place[falling] = np.arange(n)
    is_top = np.zeros(n, dtype=bool)
    is_top[top] = True
    drawn = [(top, top)]
    for fifth in range(len(FIFTHS)):
        members = falling[n * fifth // len(FIFTHS) : n * (fifth + 1) // len(FIFTHS)]
        # What the top shows already is only shown again where the fifth has nothing else.
        fresh = members[~is_top[members]]
        pool = fresh if len(fresh) else members
        chosen = rng.choice(pool, size=min(N_FIFTH, len(pool)), replace=False) if len(pool) else pool
        drawn.append((members, chosen[np.argsort(place[chosen])]))
    tokens = rng.choice(int(n_tokens.sum()), size=min(N_RANDOM, int(n_tokens.sum())), replace=False)
    chosen = np.unique(np.searchsorted(np.cumsum(n_tokens), tokens, side="right"))
    drawn.append((falling, chosen[np.argsort(place[chosen])]))
    return drawn


def all_moments(codes: sparse.csc_array, steps: StoredSteps) -> Moments:
    """All moments of some latents, from their activations [token, latent] on all tokens."""
    latent = np.repeat(np.arange(codes.shape[1], dtype=np.int64), np.diff(codes.indptr))
    token, value = codes.indices.astype(np.int64), codes.data
    video = np.searchsorted(steps.row_start, token, side="right") - 1
    rank = token - steps.row_start[video] if len(token) else token
    patches = steps.n_patches[video]
    t, patch = rank // patches, rank % patches

    begins = _changes(latent, video, t)  # the tokens of one step follow one another
    first = np.flatnonzero(begins)
    highest = _reduced(np.maximum, value, first)
    where = _first_highest(value, highest, first, begins)
    latent, video, t = latent[first], video[first], t[first]
    n_tokens = np.diff(np.append(first, len(value)))
    mass = _reduced(np.add, value.astype(np.float64), first)

    is_run = _changes(latent, video)
    is_run[1:] |= t[1:] != t[:-1] + 1
    cut = is_run | rises_again(highest, is_run)
    start = np.flatnonzero(cut)
    peak = _reduced(np.maximum, highest, start)
    best = _first_highest(highest, peak, start, cut)
    last = np.append(start, len(t))[1:] - 1
    return Moments(
        latent=latent[start],
        video=video[start],
        t_first=t[start],
        t_last=t[last],
        t=t[best],
        patch=patch[where[best]],
        activation=peak,
        n_tokens=_reduced(np.add, n_tokens, start),
        mass=_reduced(np.add, mass, start),
    )


def rises_again(value: Float32[np.ndarray, " step"], is_run: Bool[np.ndarray, " step"]) -> Bool[np.ndarray, " step"]:
    """Where a value rises for the first time after it fell, within its run; equal ones neither rise nor fall.

    Args:
        value: one after another, run after run.
        is_run: whether a run begins there.
    """
    change = np.zeros(len(value), dtype=np.int64)
    change[1:] = np.sign(value[1:] - value[:-1])
    change[is_run] = 1
    # The last place at or before each one where the value changed; every run begins with one.
    changed = np.maximum.accumulate(np.where(change != 0, np.arange(len(value)), 0))
    before = np.ones(len(value), dtype=np.int64)
    before[1:] = change[changed[:-1]]
    return (change > 0) & (before < 0) & ~is_run


def describe_moments(found: pd.DataFrame, videos: Sequence[VideoRecord], held_out: Collection[str]) -> pd.DataFrame:
    """The table `MOMENTS` of what `find_moments` found."""
    ids = np.array([video.video_id for video in videos], dtype=object)
    split = np.array(["held_out" if video.video_id in held_out else "train" for video in videos], dtype=object)
    n_cols = np.array([video.grid.n_cols for video in videos], dtype=np.int64)
    offset = np.cumsum([0, *(video.grid.n_t for video in videos)])
    spans = np.concatenate([np.empty((0, 2)), *(video.grid.spans_s for video in videos)])
    video, patch = found["video"].to_numpy(), found["patch"].to_numpy()
    return pd.DataFrame(
        {
            **{name: found[name] for name in MOMENTS.names if name in found},
            "group": np.array(GROUPS, dtype=object)[found["group"].to_numpy()],
            "video_id": ids[video],
            "split": split[video],
            "start_s": spans[offset[video] + found["t_first"].to_numpy(), 0],
            "stop_s": spans[offset[video] + found["t_last"].to_numpy(), 1],
            "row": patch // n_cols[video] if len(video) else patch,
            "col": patch % n_cols[video] if len(video) else patch,
        }
    )[MOMENTS.names]


def _changes(*keys: Int64[np.ndarray, " item"]) -> Bool[np.ndarray, " item"]:
    """Whether an item differs from the one before it in any key; the first one does."""
    changes = np.zeros(len(keys[0]), dtype=bool)
    changes[:1] = True
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return changes


def _reduced(function: np.ufunc, values: np.ndarray, first: Int64[np.ndarray, " run"]) -> np.ndarray:
    return function.reduceat(values, first) if len(first) else values[:0]


def _first_highest(
    values: np.ndarray, highest: np.ndarray, first: Int64[np.ndarray, " run"], begins: Bool[np.ndarray, " item"]
) -> Int64[np.ndarray, " run"]:
    """The first item of each run that has its highest value."""
    run = np.cumsum(begins) - 1
    at = np.where(values == highest[run], np.arange(len(values)), len(values))
    return _reduced(np.minimum, at, first)
