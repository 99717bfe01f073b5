"""AUROC of many latents and labels at once, in time linear in what is not zero.

A label's negatives are the eligible units without those that it touches, so that the wins of its positives over its
negatives are their wins over all eligible units, which need no label, less their wins over the eligible ones that it
touches, of which a unit has few. Wins are whole and half numbers, and exact.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse

from features.association.inference import clustered_z
from features.association.runs import Runs, SortedItems, cumulative, sortable
from features.association.split_units import NEITHER, POSITIVE, POSITIVE_UNIT, SPOILED, PlaceUnits, SplitUnits
from features.division import blocks_of

MAX_ENTRIES = 4_000_000
"""Activations, and videos, of the pairs whose within-video AUROCs are measured at once: some 100 bytes each."""


def pooled_auroc(units: SplitUnits, entries: sparse.csc_array) -> Float64[np.ndarray, "latent label"]:
    """AUROC over all units; NaN for labels without positives or negatives.

    Args:
        units: labels.
        entries: [unit, latent] from `SplitUnits.entries`.
    """
    if isinstance(units, PlaceUnits):
        return _auroc_of_places(units, entries)
    n_latents, n_labels = entries.shape[1], units.n_labels
    row = units.row[entries.indices]
    kept = units.concerned[row]
    latent = np.repeat(np.arange(n_latents, dtype=np.int64), np.diff(entries.indptr))[kept]
    row, value = row[kept], entries.data[kept]
    n_positive, n_spoiled = units.n_positive.sum(axis=0), units.n_spoiled.sum(axis=0)
    n_eligible = int(units.n_eligible.sum())
    first = SortedItems.by(latent, sortable(value))
    latent, row = latent[first.order], row[first.order]
    eligible = cumulative(units.eligible[row])
    start = np.searchsorted(latent, np.arange(n_latents + 1))
    zeros = n_eligible - np.diff(eligible[start])
    beaten = 0.5 * (eligible[first.tie_start] + eligible[first.tie_stop])
    beaten += (zeros - eligible[start[:-1]])[latent]

    # The labels that touch each entry's row, sorted by (latent, label, activation).
    marks = units.marks
    n_marks = np.diff(marks.indptr)[row]
    entry = np.repeat(np.arange(len(row)), n_marks)
    at = np.arange(len(entry)) - np.repeat(np.cumsum(n_marks) - n_marks, n_marks) + marks.indptr[row[entry]]
    label, mark = marks.indices[at].astype(np.int64), marks.data[at]
    second = SortedItems.by(latent[entry] * n_labels + label, first.tie_start[entry])
    entry, mark = entry[second.order], mark[second.order]
    cell = Runs.between(second.key)
    own, of = np.divmod(second.key[cell.start], n_labels) if len(cell.start) else (cell.start, cell.start)
    spoiled = cumulative((mark & SPOILED) > 0)
    is_positive = (mark & POSITIVE) > 0
    spoiled_zeros = n_spoiled[of] - (spoiled[cell.stop] - spoiled[cell.start])
    lost = 0.5 * (spoiled[second.tie_start] + spoiled[second.tie_stop])
    lost += (spoiled_zeros - spoiled[cell.start])[cell.of]
    found = cell.total(np.where(is_positive, beaten[entry] - lost, 0.0))
    zero_positives = n_positive[of] - cell.total(is_positive.astype(np.float64))
    found += 0.5 * zero_positives * (zeros[own] - spoiled_zeros)

    wins = 0.5 * n_positive * (zeros[:, None] - n_spoiled)  # where a latent is active on nothing that a label touches
    wins[own, of] = found
    n_pairs = n_positive * (n_eligible - n_spoiled)
    return np.divide(wins, n_pairs, out=np.full(wins.shape, np.nan), where=n_pairs > 0)


def _auroc_of_places(units: PlaceUnits, entries: sparse.csc_array) -> Float64[np.ndarray, "latent label"]:
    """The same of labels that follow from cells: sums by cell give the wins of positives over all units.

    Of these, positives win half of the pairs among themselves.
    """
    n_latents, n_cells = entries.shape[1], len(units.in_cells)
    size = np.diff(entries.indptr).astype(np.int64)
    items = SortedItems.by(np.repeat(np.arange(n_latents, dtype=np.int64), size), sortable(entries.data))
    latent, zeros = items.key, units.n_units - size
    beaten = 0.5 * (items.tie_start + items.tie_stop) + (zeros - entries.indptr[:-1])[latent]
    place = latent * n_cells + units.row[entries.indices[items.order]]
    labels = units.in_cells.astype(np.float64)

    def by_label(weights: Float64[np.ndarray, " entry"] | None) -> Float64[np.ndarray, "latent label"]:
        sums = np.bincount(place, weights=weights, minlength=n_latents * n_cells).astype(np.float64)
        return sums.reshape(n_latents, n_cells) @ labels  # of whole and half numbers, and exact in any order

    n_positive = units.n_positive.sum(axis=0).astype(np.float64)
    n_pairs = n_positive * (units.n_units - n_positive)
    wins = by_label(beaten) + 0.5 * (n_positive - by_label(None)) * zeros[:, None] - 0.5 * n_positive**2
    return np.divide(wins, n_pairs, out=np.full(wins.shape, np.nan), where=n_pairs > 0)


def within_video_z(
    units: SplitUnits, entries: sparse.csc_array, column: Int64[np.ndarray, " pair"], label: Int64[np.ndarray, " pair"]
) -> Float64[np.ndarray, " pair"]:
    """Mean within-video AUROC less ½, in standard errors over videos; see `features.association.inference.clustered_z`.

    Args:
        units: labels.
        entries: [unit, latent] from `SplitUnits.entries`.
        column: latent of each pair.
        label: label of each pair.
    """
    entries = _concerned(units, entries)
    by_label = np.argsort(label, kind="stable")
    column, label = column[by_label], label[by_label]
    size = np.diff(entries.indptr)[column].astype(np.int64)
    parts = [
        clustered_z(_within_aurocs(units, entries, column[block.start : block.stop], label[block.start : block.stop]))
        for block in blocks_of(size + units.n_videos, MAX_ENTRIES)
    ]
    z = np.empty(len(label))
    z[by_label] = np.concatenate([np.empty(0), *parts])
    return z


def _concerned(units: SplitUnits, entries: sparse.csc_array) -> sparse.csc_array:
    """The entries on units that are positive or negative for some label; many tokens are for none."""
    kept = units.concerned[units.row[entries.indices]]
    ends = cumulative(kept)[entries.indptr].astype(entries.indptr.dtype)
    return sparse.csc_array((entries.data[kept], entries.indices[kept], ends), shape=entries.shape)


def _within_aurocs(
    units: SplitUnits, entries: sparse.csc_array, column: Int64[np.ndarray, " pair"], label: Int64[np.ndarray, " pair"]
) -> Float64[np.ndarray, "pair video"]:
    """AUROC within each video; NaN where it lacks positives or negatives. Pairs are ordered by label."""
    n_videos = units.n_videos
    start, size = entries.indptr[column].astype(np.int64), np.diff(entries.indptr)[column].astype(np.int64)
    end = np.cumsum(size)
    pair = np.repeat(np.arange(len(column)), size)
    at = np.arange(len(pair)) + np.repeat(start - end + size, size)
    unit = entries.indices[at]
    classes = np.empty(len(unit), dtype=np.int8)
    labels, first = np.unique(label, return_index=True)
    cuts = [*(end - size)[first].tolist(), len(unit)]
    for place, (_, class_of) in enumerate(units.classes_of(labels)):
        own = slice(cuts[place], cuts[place + 1])
        classes[own] = class_of(unit[own])
    used = np.flatnonzero(classes != NEITHER)
    items = SortedItems.by(pair[used] * n_videos + units.video[unit[used]], sortable(entries.data[at[used]]))
    is_positive = classes[used[items.order]] == POSITIVE_UNIT
    group = Runs.between(items.key)
    negatives = cumulative(~is_positive)
    n_active = negatives[group.stop] - negatives[group.start]
    positives, negative = units.n_positive[:, label].T.reshape(-1), units.n_negative_of(label).T.reshape(-1)
    cell = items.key[group.start]
    zeros = negative[cell] - n_active
    below = 0.5 * (negatives[items.tie_start] + negatives[items.tie_stop]) + (zeros - negatives[group.start])[group.of]
    n_pairs = positives * negative
    wins = 0.5 * n_pairs  # where the latent is not active at all
    zero_positives = positives[cell] - group.total(is_positive.astype(np.float64))
    wins[cell] = group.total(np.where(is_positive, below, 0.0)) + 0.5 * zero_positives * zeros
    found = np.divide(wins, n_pairs, out=np.full(len(wins), np.nan), where=n_pairs > 0)
    return found.reshape(len(column), n_videos)
