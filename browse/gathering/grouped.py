"""A table by one of its columns: the rows of a key as plain values, without a data frame per key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd


class Grouped:
    """The rows of a table by key, in the table's order.

    Args:
        table: the table.
        key: column with the keys.
        names: columns to keep; all of them if None.
    """

    def __init__(self, table: pd.DataFrame, key: str, names: Sequence[str] | None = None) -> None:
        keys, values = pd.factorize(table[key], sort=True)
        order = np.argsort(keys, kind="stable")
        self._columns = [_Values(table[name], order) for name in names or [str(name) for name in table]]
        self._names = [str(name) for name in (names or table)]
        ends = np.searchsorted(keys[order], np.arange(len(values) + 1))
        self._places = {value: (int(ends[i]), int(ends[i + 1])) for i, value in enumerate(values.tolist())}

    def rows(self, key: object) -> list[dict[str, Any]]:
        """The rows of a key; none where there are none."""
        place = self._places.get(key)
        return [] if place is None else list(self._slice(*place))

    def _slice(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        for values in zip(*(column.taken(start, stop) for column in self._columns), strict=True):
            yield dict(zip(self._names, values, strict=True))


class _Values:
    """A column; texts are kept once each."""

    def __init__(self, column: pd.Series, order: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        self._texts: list[Any] | None = None
        if column.dtype.kind in "fiub":
            self._values = column.to_numpy()[order]
        elif column.map(lambda value: isinstance(value, (list, np.ndarray))).any():
            self._values = column.to_numpy(dtype=object)[order]
        else:
            codes, texts = pd.factorize(column)
            self._values, self._texts = codes[order], [*texts.tolist(), None]  # -1 is missing

    def taken(self, start: int, stop: int) -> list[Any]:
        values = self._values[start:stop].tolist()
        return values if self._texts is None else [self._texts[code] for code in values]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """All rows as plain values."""
    everything = np.arange(len(table))
    columns = [_Values(table[name], everything).taken(0, len(table)) for name in table]
    names = [str(name) for name in table]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
