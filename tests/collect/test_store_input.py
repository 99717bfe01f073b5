"""Whatever stands in a store's files, the outcome is the right content, or one sentence that names the file."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collect.artefact.config_json import write_config
from collect.artefact.seal import CHECKSUM, seal_object
from collect.config import VerifyConfig
from collect.errors import UserError
from collect.reading import ActivationStore
from collect.store.commit_log import read_log
from collect.store.verify import find_problems, verify
from collect.store.zarr_arrays import cut_arrays
from tests.collect.store_files import (
    contents,
    edit_manifest,
    fill,
    make_first_version,
    open_writer,
    write_log,
    write_store,
)
from train_sae.batches.shard_reader import ShardReader

LENGTHS = (3, 0, 4)  # 21 rows: two shards
DEEP: Any = [0]
for _ in range(800):
    DEEP = [DEEP]
ODD = [None, True, 0, -1, 1, 3, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, float("nan"), float("inf"), "", "x", "../x"]
ODD += ["/dev/zero", "\0", "\n\x1b[2J", [], [[]], [0], [-1], [10**30], ["x"], {}, {"x": 1}, DEEP]
TEXTS = [
    b"",
    b"\n",
    b"{",
    b"{}\n",
    b"[]\n",
    b"null\n",
    b"0\n",
    b"\xff\xfe",
    b"[" * 10_000,
    b'{"a":' * 10_000,
    b"9" * 5000,
]
TEXTS += [b'{"a": ' + b"9" * 5000 + b"}\n", b"\xef\xbb\xbf{}\n", b"\0" * 64, b"\n\n{}\n"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_store(tmp_path_factory.mktemp("whole") / "activations", LENGTHS)
    write_config(folder, "collect", {}, {})
    return folder


@pytest.fixture(scope="module")
def rows(whole: Path) -> dict[str, torch.Tensor]:
    return read_all(whole)


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    store = ActivationStore.open(folder)
    found = {site: store.read(site, 0, store.n_tokens) for site in store.sites}
    for site in store.sites:
        out = torch.empty_like(found[site])
        places = np.arange(store.n_tokens)
        if store.n_tokens:
            ShardReader(store.shards(site), store.dtype(site), threads=1).read(places, places, out)
            assert torch.equal(out, found[site])
        store.moments(site)
    texts = json.dumps([[v.video_id, v.path, v.grid.to_json(), v.frame_rate, v.row_start] for v in store.videos])
    return {
        **found,
        "coords": torch.from_numpy(store.coords(0, store.n_tokens)),
        "videos": torch.from_numpy(
            np.frombuffer(f"{texts}{store.failures}{store.fingerprint}".encode(), np.uint8).copy()
        ),
    }


def outcome(act: Callable[[], object], folder: Path) -> object:
    """What comes of it; a refusal must name a file of the store in one piece of printable text."""
    try:
        return act()
    except UserError as error:
        words = str(error)
    assert str(folder) in words
    assert words.replace("\n", "").isprintable()
    return None


def resume(folder: Path) -> None:
    with open_writer(folder) as writer:
        fill(writer, LENGTHS)
        writer.finish()
    cut_arrays(folder, 0)


def try_everything(folder: Path, rows: dict[str, torch.Tensor] | None) -> None:
    """Read, verify and resume; where `rows` are given, what is read must be they, and verify must find what is not."""
    found: Any = outcome(lambda: read_all(folder), folder)
    problems = find_problems(folder)
    if rows is not None and found is not None:
        assert all(torch.equal(found[name], rows[name]) for name in rows)
    if rows is not None and found is None:
        assert problems, "what cannot be read is found"
    outcome(lambda: verify(VerifyConfig(run=folder, repair=True)), folder)
    outcome(lambda: resume(folder), folder)


def paths_in(value: Any) -> list[tuple[Any, ...]]:
    """Ways to every value within a JSON value."""
    here: list[tuple[Any, ...]] = [()]
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return here + [(key, *path) for key, inner in items for path in paths_in(inner)]


def mutate(data: st.DataObject, value: Any) -> Any:
    """Delete, replace or double one value somewhere within."""
    path = data.draw(st.sampled_from(paths_in(value)), label="path")
    kind = data.draw(st.sampled_from(["replace", "delete", "double"]), label="kind")
    odd = data.draw(st.sampled_from(ODD), label="value")
    if not path:
        return odd if kind == "replace" else value
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if kind == "replace":
        holder[path[-1]] = odd
    elif kind == "delete":
        del holder[path[-1]]
    elif isinstance(holder, list):
        holder.insert(path[-1], holder[path[-1]])
    return value


FILES = ("manifest.json", "rank-0.jsonl", "rank-0.zarr/coords/zarr.json", "rank-0.zarr/resid/zarr.json")
SHORT, LONG = (
    settings(max_examples=n, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    for n in (12, 600)
)


@pytest.fixture
def fresh(whole: Path, tmp_path: Path) -> Callable[[], Path]:
    def copy() -> Path:
        shutil.rmtree(tmp_path / "activations", ignore_errors=True)
        return Path(shutil.copytree(whole, tmp_path / "activations"))

    return copy


def change_bytes(data: st.DataObject, fresh: Callable[[], Path], rows: dict[str, torch.Tensor]) -> None:
    folder = fresh()
    path = folder / data.draw(st.sampled_from((*FILES, "rank-0.zarr/coords/c/0/0", "rank-0.zarr/projector/c/1/0")))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1), label="at")
    kind = data.draw(st.sampled_from(["flip", "cut", "double", "text", "lines"]), label="kind")
    if kind == "flip":
        content = content[:at] + bytes([content[at] ^ 1 << data.draw(st.integers(0, 7))]) + content[at + 1 :]
    elif kind == "cut":
        content = content[:at]
    elif kind == "double":
        content = content[:at] + content[at // 2 :]
    elif kind == "text":
        content = data.draw(st.sampled_from(TEXTS))
    else:
        lines = content.splitlines(keepends=True)
        content = b"".join(data.draw(st.lists(st.sampled_from(lines), max_size=6)))
    path.write_bytes(content)
    try_everything(folder, rows)


def change_values(data: st.DataObject, fresh: Callable[[], Path]) -> None:
    first = data.draw(st.booleans(), label="first version")
    folder = make_first_version(fresh()) if first else fresh()
    name = data.draw(st.sampled_from(FILES), label="file")
    path = folder / name
    if name == "rank-0.jsonl":
        lines = mutate(data, [dict(line) for line in read_log(path).lines])
        if not isinstance(lines, list):
            lines = []
        write_log(path, lines, None if first else 0)
    else:
        content = mutate(data, json.loads(path.read_text()))
        sealed = isinstance(content, dict) and CHECKSUM in content and content is not DEEP
        path.write_text(json.dumps(seal_object(content) if sealed else content))
    try_everything(folder, None)


@SHORT
@given(data=st.data())
def test_bytes_that_changed_are_found(
    data: st.DataObject, fresh: Callable[[], Path], rows: dict[str, torch.Tensor]
) -> None:
    change_bytes(data, fresh, rows)


@SHORT
@given(data=st.data())
def test_values_that_cannot_be_are_refused(data: st.DataObject, fresh: Callable[[], Path]) -> None:
    """Also where the checksums are right, as somebody may write on purpose, and where there are none."""
    change_values(data, fresh)


@pytest.mark.slow
@LONG
@given(data=st.data())
def test_many_changes_of_bytes_and_values(
    data: st.DataObject, fresh: Callable[[], Path], rows: dict[str, torch.Tensor]
) -> None:
    if data.draw(st.booleans(), label="bytes"):
        change_bytes(data, fresh, rows)
    else:
        change_values(data, fresh)


@pytest.mark.parametrize("name", [*FILES, "rank-0.zarr/coords/c/0/0", "rank-0.zarr"])
@pytest.mark.parametrize("what", ["folder", "pipe", "device", "nothing"])
def test_what_is_no_file_is_not_read(fresh: Callable[[], Path], name: str, what: str) -> None:
    folder = fresh()
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    if name == "rank-0.zarr" and what == "folder":
        return
    assert find_problems(folder) or (name == "manifest.json" and what == "nothing")
    outcome(lambda: read_all(folder), folder)
    outcome(lambda: verify(VerifyConfig(run=folder, repair=True)), folder)


@pytest.mark.parametrize("outside", ["../other/rank-0.jsonl", "{}/other/rank-0.jsonl", "link.jsonl"])
@pytest.mark.parametrize("first", [False, True])
def test_repairing_never_touches_a_log_outside(
    fresh: Callable[[], Path], tmp_path: Path, outside: str, first: bool
) -> None:
    folder = fresh()
    other = write_store(tmp_path / "other", LENGTHS)
    shard = other / "rank-0.zarr" / "coords" / "c" / "0" / "0"
    shard.write_bytes(b"x" + shard.read_bytes()[1:])
    if first:
        make_first_version(folder)
        make_first_version(other)
    before = contents(other)
    (folder / "link.jsonl").symlink_to(other / "rank-0.jsonl")
    name = outside.format(tmp_path)
    if first:
        content = json.loads((folder / "manifest.json").read_text())
        content["ranks"][0]["log"] = name
        (folder / "manifest.json").write_text(json.dumps(content))
    else:
        edit_manifest(folder, lambda content: content["ranks"][0].update(log=name))
    for repair in (False, True):
        with pytest.raises(UserError, match=r"manifest\.json names the path .* which is not one within"):
            verify(VerifyConfig(run=folder, repair=repair))
    with pytest.raises(UserError, match=r"manifest\.json names the path"):
        ActivationStore.open(folder)
    assert contents(other) == before
