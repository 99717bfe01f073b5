"""The columns of the overview: titles, what they mean, and how each is stored.

What a number means in full is in docs/metrics.md; the sentences here are what a head of a column can show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from browse.shards import Column, choices, flags, floats, integers, quantised, texts

Group = Literal["activity", "label", "association", "effect", "map"]
Kind = Literal["number", "text", "choice", "flag"]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One column of the overview."""

    name: str
    title: str
    description: str
    group: Group
    kind: Kind = "number"
    unit: str | None = None
    store: Callable[[Sequence[Any]], Column] = quantised

    def described(self) -> dict[str, object]:
        """What the page is told about it."""
        return {name: getattr(self, name) for name in ("name", "title", "description", "group", "unit", "kind")}


def _column(name: str, title: str, description: str, group: Group, **more: Any) -> Shown:
    return Shown(name=name, title=title, description=description, group=group, **more)


_FLAG: dict[str, Any] = {"kind": "flag", "store": flags}
_CHOICE: dict[str, Any] = {"kind": "choice", "store": choices}

COLUMNS = (
    _column("latent", "latent", "number of the latent", "activity", store=integers),
    _column("labelled", "named", "whether the label is its name", "label", **_FLAG),
    _column("top_label", "label", "label that explains it best on train videos", "label", **_CHOICE),
    _column("top_label_kind", "kind", "kind of that label", "label", **_CHOICE),
    _column("top_label_level", "level", "whether the label is about tokens or frames", "label", **_CHOICE),
    _column("also", "or", "labels that held-out videos cannot tell from it", "label", kind="text", store=texts),
    _column("unnamed_because", "not named because", "first condition of a name that it misses", "label", **_CHOICE),
    _column("is_dead", "dead", "whether it fires at no stored token", "activity", **_FLAG),
    _column("firing_rate", "firing rate", "share of the tokens at which it fires", "activity", store=floats),
    _column("n_tokens_active", "tokens", "tokens at which it fires", "activity", store=integers),
    _column("n_videos_active", "videos", "videos in which it fires", "activity", store=integers),
    _column("max_activation", "largest activation", "largest activation", "activity"),
    _column("mean_active", "mean activation", "mean over the tokens at which it fires", "activity"),
    _column("decoder_norm", "decoder norm", "how far one unit of activation moves the residual", "activity"),
    _column("temporal_autocorrelation", "persistence", "correlation of a patch with itself a step later", "activity"),
    _column("spatial_autocorrelation", "coherence", "correlation of a patch with its neighbours", "activity"),
    _column("mean_run_length", "run length", "consecutive time steps for which a patch stays active", "activity"),
    _column("top_auroc", "AUROC", "AUROC for the label, held-out videos", "association"),
    _column("top_within_video_auroc", "within videos", "mean AUROC within a video", "association"),
    _column("top_within_low", "within, low", "lower end of its 95 % interval", "association"),
    _column("top_q_value", "q", "q-value of the association", "association", store=floats),
    _column("top_control_auroc_p95", "controls", "95th percentile of the controls' AUROC", "association"),
    _column("runner_up_label", "next label", "label that explains it next best", "association", **_CHOICE),
    _column("runner_up_kind", "kind of next label", "kind of that label", "association", **_CHOICE),
    _column("runner_up_level", "level of next label", "level of that label", "association", **_CHOICE),
    _column("runner_up_auroc", "AUROC of next label", "AUROC for that label", "association"),
    _column("gap", "gap", "AUROC less that of the next label", "association"),
    _column("correlation", "correlation", "correlation with the label over all tokens", "association"),
    _column("explained", "explained", "share of its variance that the label explains", "association"),
    _column("explained_low", "explained, low", "lower end of its 95 % interval", "association"),
    _column(
        "explained_by_place_time", "by place and time", "share that position and time alone explain", "association"
    ),
    _column("runner_up_correlation", "correlation of next", "correlation with the next label", "association"),
    _column("n_units", "positives", "positive units of the label", "association", store=integers),
    _column("n_videos_positive", "videos shown", "videos with positive units", "association", store=integers),
    _column("baseline_auroc_p95", "baseline", "95th percentile of the baseline's AUROC", "association"),
    _column(
        "effect",
        "effect",
        "largest change of the margin of a subject's questions by its ablation, train videos",
        "effect",
        unit="nats",
    ),
    _column("effect_subject", "on", "subject of these questions", "effect", **_CHOICE),
    _column("effect_method", "by", "exact: the edited model was run; else an estimate", "effect", **_CHOICE),
    _column("effect_low", "effect, low", "lower end of its 95 % interval", "effect", unit="nats"),
    _column("effect_high", "effect, high", "upper end", "effect", unit="nats"),
    _column("effect_other", "others", "change of all other counting questions", "effect", unit="nats"),
    _column("effect_held_out", "held-out effect", "the same on held-out videos", "effect", unit="nats"),
    _column("effect_q", "held-out q", "q-value of the held-out effect", "effect", store=floats),
    _column("claim", "claim", "what the held-out effect allows to say", "effect", **_CHOICE),
    _column("attribution", "attribution", "the gradient's estimate over all counting questions", "effect", unit="nats"),
    _column("map_x", "map x", "first principal component of the decoder directions", "map"),
    _column("map_y", "map y", "second principal component", "map"),
    _column("thumb", "picture", "frame of its strongest moment", "map", kind="text", store=texts),
)


def unknown(name: str, values: Sequence[Any]) -> Shown | None:
    """How a catalogue's column is shown that is not listed above; None where it is neither number nor text."""
    known = [value for value in values if value is not None and value == value]  # NaN is unlike itself
    if not known:
        return None
    of = type(known[0])
    title = name.replace("_", " ")
    if all(isinstance(value, bool) for value in known) and len(known) == len(values):
        return _column(name, title, title, "activity", **_FLAG)
    if issubclass(of, str):
        return _column(name, title, title, "label", **_CHOICE)
    if issubclass(of, (int, float)):
        return _column(name, title, title, "activity", store=floats)
    return None
