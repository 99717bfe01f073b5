"""AUROC of latents against all labels of a space at once, in time linear in what is not zero.

A label's negatives are the eligible units without those that it touches, so that the wins of its positives over its
negatives are their wins over all eligible units, which need no label, less their wins over the eligible ones that it
touches, of which a unit has few. Wins are whole and half numbers, and exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse

from features.association.runs import Runs, SortedItems, cumulative, sortable
from features.association.split_units import POSITIVE, SPOILED, SplitUnits


@dataclass(frozen=True, kw_only=True)
class Areas:
    """AUROC of the (latent, label, group) in which the latent is active on some unit that is positive or eligible.

    A group is a video, or the whole split. Elsewhere all units are equal, and the AUROC is ½.
    """

    latent: Int64[np.ndarray, " area"]
    label: Int64[np.ndarray, " area"]
    auroc: Float64[np.ndarray, " area"]


def pooled_auroc(units: SplitUnits, entries: sparse.csc_array) -> Float64[np.ndarray, "latent label"]:
    """AUROC over all units; NaN for labels without positives or negatives.

    Args:
        units: labels.
        entries: [unit, latent] from `SplitUnits.entries`.
    """
    found = _areas(units, entries, by_video=False)
    n_positive, n_negative = units.n_positive.sum(axis=0), units.n_negative.sum(axis=0)
    result = np.tile(np.where((n_positive > 0) & (n_negative > 0), 0.5, np.nan), (entries.shape[1], 1))
    result[found.latent, found.label] = found.auroc
    return result


def within_video_z(units: SplitUnits, entries: sparse.csc_array) -> Float64[np.ndarray, "latent label"]:
    """Mean within-video AUROC less ½, in standard errors over videos; see `features.association.inference.clustered_z`.

    NaN where fewer than two videos have positives and negatives.
    """
    found = _areas(units, entries, by_video=True)
    n_latents, n_labels = entries.shape[1], units.n_labels
    cell = found.latent * n_labels + found.label
    excess = found.auroc - 0.5  # 0 in all videos that are not among the areas

    def total(values: Float64[np.ndarray, " area"]) -> Float64[np.ndarray, "latent label"]:
        sums = np.bincount(cell, weights=values, minlength=n_latents * n_labels)
        return sums.astype(np.float64).reshape(n_latents, n_labels)

    n = ((units.n_positive > 0) & (units.n_negative > 0)).sum(axis=0)[None, :]
    safe_n = np.maximum(n, 1)
    squares = total(excess**2)
    difference = total(excess) / safe_n
    difference[np.abs(difference) < 1e-12] = 0.0
    spread = squares - safe_n * difference**2
    spread[spread < 1e-12 * squares] = 0.0
    error = np.sqrt(spread / np.maximum(n - 1, 1) / safe_n)
    # Without any spread the mean is certain: its sign decides.
    z = np.where(error > 0, difference / np.where(error > 0, error, 1.0), np.copysign(np.inf, difference))
    z[difference == 0] = 0.0
    return np.where(n >= 2, z, np.nan)


def _areas(units: SplitUnits, entries: sparse.csc_array, *, by_video: bool) -> Areas:
    n_labels = units.n_labels
    latent = np.repeat(np.arange(entries.shape[1], dtype=np.int64), np.diff(entries.indptr))
    kept = units.concerned[entries.indices]
    latent, unit, value = latent[kept], entries.indices[kept], entries.data[kept]
    group = units.video[unit] if by_video else np.zeros(len(unit), dtype=np.int32)
    n_groups = units.n_videos if by_video else 1
    n_positive, n_spoiled, n_eligible = units.n_positive, units.n_spoiled, units.n_eligible
    if not by_video:
        n_positive, n_spoiled, n_eligible = (
            array.sum(axis=0, keepdims=True) for array in (n_positive, n_spoiled, n_eligible)
        )
    first = SortedItems.by(latent * n_groups + group, sortable(value))
    latent, unit, group = latent[first.order], unit[first.order], group[first.order].astype(np.int64)
    column = Runs.between(first.key)
    eligible = cumulative(units.eligible[unit])
    zeros = n_eligible[group[column.start]] - (eligible[column.stop] - eligible[column.start])
    beaten = 0.5 * (eligible[first.tie_start] + eligible[first.tie_stop])
    beaten += (zeros - eligible[column.start])[column.of]

    # The labels that touch each entry's unit, sorted by (column, label, activation).
    marks = units.marks
    n_marks = np.diff(marks.indptr)[unit]
    entry = np.repeat(np.arange(len(unit)), n_marks)
    at = np.arange(len(entry)) - np.repeat(np.cumsum(n_marks) - n_marks, n_marks) + marks.indptr[unit[entry]]
    label, mark = marks.indices[at].astype(np.int64), marks.data[at]
    second = SortedItems.by(column.of[entry] * n_labels + label, first.tie_start[entry])
    entry, label, mark = entry[second.order], label[second.order], mark[second.order]
    cell = Runs.between(second.key)
    spoiled = cumulative((mark & SPOILED) > 0)
    is_positive = (mark & POSITIVE) > 0
    cell_column, cell_label = column.of[entry[cell.start]], label[cell.start]
    cell_group = group[column.start][cell_column]
    spoiled_zeros = n_spoiled[cell_group, cell_label] - (spoiled[cell.stop] - spoiled[cell.start])
    lost = 0.5 * (spoiled[second.tie_start] + spoiled[second.tie_stop])
    lost += (spoiled_zeros - spoiled[cell.start])[cell.of]
    wins = cell.total(np.where(is_positive, beaten[entry] - lost, 0.0))
    zero_positives = n_positive[cell_group, cell_label] - cell.total(is_positive.astype(np.float64))
    wins += 0.5 * zero_positives * (zeros[cell_column] - spoiled_zeros)

    # Every label with positives and negatives in the group of a column has an area, whether or not it has a cell.
    n_pairs = n_positive * (n_eligible[:, None] - n_spoiled)
    measured = sparse.csr_array(n_pairs > 0)
    n_measured = np.diff(measured.indptr)[group[column.start]]
    area_start = np.cumsum(n_measured) - n_measured
    area_column = np.repeat(np.arange(len(n_measured)), n_measured)
    area_group = group[column.start][area_column]
    at = np.arange(len(area_column)) - area_start[area_column] + measured.indptr[area_group]
    area_label = measured.indices[at].astype(np.int64)
    area_wins = 0.5 * n_positive[area_group, area_label] * (zeros[area_column] - n_spoiled[area_group, area_label])
    place = np.full(n_pairs.shape, -1, dtype=np.int64)
    place[np.repeat(np.arange(n_groups), np.diff(measured.indptr)), measured.indices] = np.arange(
        measured.nnz
    ) - np.repeat(measured.indptr[:-1], np.diff(measured.indptr))
    cell_place = place[cell_group, cell_label]
    has_area = cell_place >= 0
    area_wins[(area_start[cell_column] + cell_place)[has_area]] = wins[has_area]
    return Areas(
        latent=latent[column.start][area_column],
        label=area_label,
        auroc=area_wins / n_pairs[area_group, area_label],
    )
