"""The shard format, by a reader that was written from its description alone."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from browse.shards import Shard, choices, decode, encode, flags, floats, integers, objects, quantised, texts

HOSTILE = ['"); alert(1); ("', "</script>", "\u2028", "\u202eabc", "it's", "\\", "\x00", "👩‍🔬", "\ud800"]
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


def read(script: bytes) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Name, header and columns of a shard, as the documentation says."""
    text = script.decode("ascii")
    prefix, suffix = 'videoSae.shard("', '");\n'
    assert text.startswith(prefix)
    assert text.endswith(suffix)
    name, content = text.removeprefix(prefix).removesuffix(suffix).split('","')
    data = gzip.decompress(base64.b64decode(content))
    (length,) = struct.unpack("<I", data[:4])
    header = json.loads(data[4 : 4 + length])
    assert (4 + length) % 8 == 0
    kinds = {"f4": "<f4", "i4": "<i4", "u1": "u1", "q2": "<u2", "dict": "<i4"}
    columns: dict[str, Any] = {}
    for entry in header["columns"]:
        assert entry["offset"] % 8 == 0
        part = data[4 + length + entry["offset"] :][: entry["n"]]
        columns[entry["name"]] = (
            json.loads(part) if entry["type"] in ("str", "json") else np.frombuffer(part, dtype=kinds[entry["type"]])
        )
        assert len(columns[entry["name"]]) == header["n_rows"]
    return name, header, columns


def test_every_type_of_column_is_as_documented() -> None:
    shard = Shard(
        columns={
            "f": floats([1.5, None, np.nan]),
            "i": integers([7, None, -3]),
            "u": flags([True, False, True]),
            "q": quantised([0.0, 10.0, None]),
            "s": texts(["a", None, "ü"]),
            "d": choices(["dog", None, "cat"]),
            "j": objects([{"a": [1, None]}, None, 3]),
        },
        meta={"title": "x"},
    )
    name, header, columns = read(encode("S/latents", shard))
    assert (name, header["n_rows"], header["meta"]) == ("S/latents", 3, {"title": "x"})
    np.testing.assert_array_equal(columns["f"], np.array([1.5, np.nan, np.nan], dtype=np.float32))
    assert columns["i"].tolist() == [7, -(2**31), -3]
    assert columns["u"].tolist() == [1, 0, 1]
    assert columns["q"].tolist() == [0, 65534, 65535]
    assert columns["s"] == ["a", None, "ü"]
    described = {entry["name"]: entry for entry in header["columns"]}
    assert (described["q"]["low"], described["q"]["high"]) == (0.0, 10.0)
    assert described["d"]["values"] == ["cat", "dog"]
    assert columns["d"].tolist() == [1, -1, 0]
    assert columns["j"] == [{"a": [1, None]}, None, 3]


@given(st.lists(st.one_of(st.none(), finite), min_size=1, max_size=30))
def test_quantised_numbers_are_off_by_half_a_step_at_most(values: list[float | None]) -> None:
    column = decode(encode("a", Shard(columns={"q": quantised(values)})))[1].columns["q"]
    known = [value for value in values if value is not None]
    step = (max(known) - min(known)) / 65534 if known else 0.0
    for value, found in zip(values, column.decoded(), strict=True):
        assert (value is None) == (found is None)
        if value is not None and found is not None:
            assert abs(found - value) <= 0.5 * step * (1 + 1e-6) + 1e-9 * abs(value)


@given(st.lists(st.one_of(st.none(), st.text(max_size=8)), max_size=20), st.lists(finite, max_size=20))
def test_what_is_written_is_read(words: list[str | None], numbers: list[float]) -> None:
    shard = Shard(columns={"s": texts(words), "d": choices(words), "j": objects([[word] for word in words])})
    assert read_back(shard)["s"] == [None if w is None else w.encode("utf-8", "replace").decode() for w in words]
    assert read_back(shard)["d"] == read_back(shard)["s"]
    assert read_back(Shard(columns={"f": floats(numbers)}))["f"] == numbers


def read_back(shard: Shard) -> dict[str, list[Any]]:
    return {name: column.decoded() for name, column in decode(encode("a/b", shard))[1].columns.items()}


def test_hostile_text_cannot_leave_the_script() -> None:
    shard = Shard(columns={"s": texts(HOSTILE), "j": objects(HOSTILE)}, meta={"labels": HOSTILE})
    script = encode("a", shard)
    name, header, columns = read(script)
    shown = [text.encode("utf-8", "replace").decode() for text in HOSTILE]
    assert columns["s"] == shown
    assert header["meta"]["labels"] == shown
    assert name == "a"
    assert script.count(b'"') == 4
    assert b"<" not in script


def test_numbers_that_json_has_not_are_null() -> None:
    shard = Shard(columns={"j": objects([{"a": np.nan, "b": [np.inf, 1.0]}])}, meta={"x": -np.inf})
    _, header, columns = read(encode("a", shard))
    assert columns["j"] == [{"a": None, "b": [None, 1.0]}]
    assert header["meta"] == {"x": None}


def test_the_same_content_gives_the_same_bytes() -> None:
    shard = Shard(columns={"f": floats([1.0, 2.0])}, meta={"a": 1})
    assert encode("a", shard) == encode("a", Shard(columns={"f": floats([1.0, 2.0])}, meta={"a": 1}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'alert(1);videoSae.shard("a","");\n',
        b'videoSae.shard("a","AAAA");\n',
        b'videoSae.shard("a","%s");\n' % base64.b64encode(gzip.compress(b"\x02\0\0\0{}", mtime=0)),
    ],
    ids=["nothing", "script", "no gzip", "header without its names"],
)
def test_what_is_no_shard_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="shard"):
        decode(data)


def test_an_int32_that_does_not_fit_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        integers([2**31])
