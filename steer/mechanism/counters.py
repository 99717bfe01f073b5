"""Counters: latents whose activation runs with the number of events so far.

Per frame, a latent's activations are summed over the patches, and the number of events that have begun is known from
the annotations. Both are taken relative to their means in the video. Time is the rival, since counts only grow: events
come at irregular times, so a latent that follows the count gains over one that follows the clock. Coefficients come
from train videos and are judged on held-out ones.

Whether the model reads such a state is another matter: it is exchanged, in one frame, for that of a video in which one
event more has happened by then. Controls: the whole residual of that frame, and videos with the same count there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from steer.codes import VideoCodes
from steer.mechanism.matched import Bench, Real, estimate, video_draws
from steer.mechanism.occurrences import EventLabel, annotated_events

TOP = 3
"""Latents per subject, by their gain over time on the train videos."""
LEAST_GAIN = 0.02
"""Gain on the train videos from which a latent is listed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Counted:
    """One video over its frames: what regressions need of it, which is small however many latents there are.

    All products are of values relative to their means over the video's frames.
    """

    video_id: str
    so_far: Float[np.ndarray, " n_t"]
    """Events that have begun."""
    regressors: Float[np.ndarray, "2 2"]
    """Products of the number of events and of time, with each other."""
    mixed: Float[np.ndarray, "2 d_sae"]
    """Their products with the activations of each latent, summed over the patches of the frame."""
    squares: Float[np.ndarray, " d_sae"]
    """Sum of squares of these activations."""

    @classmethod
    def of(cls, video_id: str, so_far: Float[np.ndarray, " n_t"], totals: Float[np.ndarray, "n_t d_sae"]) -> Counted:
        """Work out the products."""
        x = np.stack([so_far, np.arange(len(so_far), dtype=np.float64)], axis=1)
        x, y = x - x.mean(axis=0), totals - totals.mean(axis=0)
        return cls(video_id=video_id, so_far=so_far, regressors=x.T @ x, mixed=x.T @ y, squares=(y**2).sum(axis=0))

    def left(self, columns: Sequence[int], slopes: Real) -> Real:
        """Squares that some regressors with these slopes leave."""
        own = list(columns)
        explained = (slopes * (2 * self.mixed[own] - self.regressors[np.ix_(own, own)] @ slopes)).sum(axis=0)
        return np.maximum(self.squares - explained, 0.0)


def frame_totals(codes: VideoCodes, n_t: int, d_sae: int) -> Float[np.ndarray, "n_t d_sae"]:
    """Activation of each latent per frame, summed over its tokens."""
    step = (codes.token // (codes.n_tokens // n_t)).cpu().numpy()
    out = np.zeros((n_t, d_sae))
    np.add.at(out, (step, codes.latent.cpu().numpy()), codes.value.double().cpu().numpy())
    return out


def counted_videos(bench: Bench, subject: str, label: EventLabel) -> list[Counted]:
    """The videos of a subject whose events are annotated."""
    found: list[Counted] = []
    for video_id in bench.asked(subject):
        _, codes = bench.cases[video_id]
        scene = bench.cases.scene(video_id)
        events = annotated_events(label, scene)
        if events is None:
            continue
        begun = np.zeros(scene.grid.n_t)
        for frames in events:
            begun[int(np.flatnonzero(frames)[0])] += 1
        totals = frame_totals(codes, scene.grid.n_t, bench.editor.sae.d_sae)
        found.append(Counted.of(video_id, begun.cumsum(), totals))
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Fits:
    """Squares left by each regression, per video and latent, after each video's mean is taken off."""

    nothing: Float[np.ndarray, "video latent"]
    time: Float[np.ndarray, "video latent"]
    count: Float[np.ndarray, "video latent"]
    both: Float[np.ndarray, "video latent"]

    def explained(self, name: str, videos: NDArray[np.int64] | None = None) -> Float[np.ndarray, " latent"]:
        """Share of the squares that a regression explains over some videos; NaN for a latent that never varies."""
        chosen = slice(None) if videos is None else videos
        total = self.nothing[chosen].sum(axis=0)
        left = getattr(self, name)[chosen].sum(axis=0)
        return np.divide(total - left, total, out=np.full(len(total), np.nan), where=total > 0)

    def of(self, latents: Sequence[int]) -> Fits:
        """Those of some latents."""
        own = list(latents)
        return Fits(
            nothing=self.nothing[:, own], time=self.time[:, own], count=self.count[:, own], both=self.both[:, own]
        )

    def gain(self, videos: NDArray[np.int64] | None = None) -> Float[np.ndarray, " latent"]:
        """What the count explains over what time does alone."""
        return self.explained("both", videos) - self.explained("time", videos)


def regress(fitted: Sequence[Counted], judged: Sequence[Counted]) -> Fits:
    """Fit each latent's total per frame on some videos, and measure what is left on others.

    Within videos: all are taken relative to their means over the video's frames.
    """
    names = {"time": [1], "count": [0], "both": [0, 1]}
    regressors = np.sum([video.regressors for video in fitted], axis=0)
    mixed = np.sum([video.mixed for video in fitted], axis=0)
    left: dict[str, Real] = {}
    for name, columns in names.items():
        slopes = np.linalg.lstsq(regressors[np.ix_(columns, columns)], mixed[columns], rcond=None)[0]
        left[name] = np.stack([video.left(columns, slopes) for video in judged])
    return Fits(nothing=np.stack([video.squares for video in judged]), **left)


def counter_rows(train: Bench, held_out: Bench, subject: str, label: EventLabel) -> list[dict[str, Any]]:
    """Rows of counters.parquet for one subject: its leading latents one by one, then together."""
    fitted, judged = (counted_videos(bench, subject, label) for bench in (train, held_out))
    if len(fitted) < 2 or len(judged) < 2:
        return []
    on_train, on_held_out = regress(fitted, fitted), regress(fitted, judged)
    gain = np.nan_to_num(on_train.gain(), nan=-1.0)
    order = np.lexsort((np.arange(len(gain)), -gain))[:TOP]
    chosen = [int(latent) for latent in order if gain[latent] >= LEAST_GAIN]
    leading = on_held_out.of(chosen)
    drawn = video_draws(len(judged), held_out.seed)
    gains = np.stack([leading.gain(videos) for videos in drawn]) if chosen else np.zeros((1, 0))
    rows: list[dict[str, Any]] = []
    sets = [(latent,) for latent in chosen] + ([tuple(chosen)] if len(chosen) > 1 else [])
    for place, latents in enumerate(sets):
        row: dict[str, Any] = {
            "subject": subject,
            "label": label.label,
            "latents": list(latents),
            "n_train_videos": len(fitted),
            "n_videos": len(judged),
        }
        if len(latents) == 1:
            low, high = np.nanquantile(gains[:, place], [0.025, 0.975])
            row |= {
                "train_gain": float(gain[latents[0]]),
                **{f"explained_{name}": float(on_held_out.explained(name)[latents[0]]) for name in ("time", "count")},
                "gain": float(on_held_out.gain()[latents[0]]),
                "gain_low": float(low),
                "gain_high": float(high),
            }
        rows.append(row | exchanged(held_out, subject, judged, latents))
    return rows


def exchanges(
    judged: Sequence[Counted], shapes: dict[str, tuple[int, int, int]], more: int
) -> list[tuple[str, str, int]]:
    """Per video another one and a time step at which `more` events more have happened there: (into, from, step).

    The latest such step after an event of the first video is taken; partners take turns.
    """
    found: list[tuple[str, str, int]] = []
    for place, one in enumerate(judged):
        others = [*judged[place + 1 :], *judged[:place]]
        fitting = [
            (int(step), other.video_id)
            for other in others
            if shapes[other.video_id] == shapes[one.video_id]
            for step in np.flatnonzero((other.so_far - one.so_far == more) & (one.so_far > 0))[-1:]
        ]
        if fitting:
            step = max(each[0] for each in fitting)
            partner = next(other for at, other in fitting if at == step)
            found.append((one.video_id, partner, step))
    return found


def exchanged(bench: Bench, subject: str, judged: Sequence[Counted], latents: Sequence[int]) -> dict[str, Any]:
    """What the state of one frame does in another video, in counts: one event more, and as many."""
    decoder = bench.editor.sae.W_dec[list(latents)].float()
    shapes = {video.video_id: bench.cases.scene(video.video_id).shape for video in judged}
    out: dict[str, Any] = {}
    for name, more in (("more", 1), ("same", 0)):
        moved, whole = list[float](), list[float]()
        for into, source, step in exchanges(judged, shapes, more):
            case, codes, scene = bench.matched(into, subject)
            theirs, other = bench.cases[source]
            n = scene.n_patches
            own = slice(step * n, (step + 1) * n)
            visual = case.sequences.visual.float()
            state = (other.columns(latents) - codes.columns(latents)) @ decoder
            residual = theirs.sequences.visual.float() - visual
            edits = [change.new_zeros(change.shape) for change in (state, residual)]
            for edit, change in zip(edits, (state, residual), strict=True):
                edit[own] = change[own]
            shifts = bench.shifts(case, edits)
            moved.append(float(shifts.count[0]))
            whole.append(float(shifts.count[1]))
        out[f"n_{name}"] = len(moved)
        out |= estimate(moved, bench.seed).columns(f"state_{name}")
        out |= estimate(whole, bench.seed).columns(f"residual_{name}")
    return out
