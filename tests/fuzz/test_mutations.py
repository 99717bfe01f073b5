"""Mutations change the file or its place, and a seed says which."""

import json
import shutil
import struct
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from tests.fuzz import json_mutations, mutations, table_mutations, tensor_mutations
from tests.fuzz.snapshots import snapshot

FILES = ("record.json", "log.jsonl", "table.parquet", "weights.safetensors", "shard")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """One file of each format, and a neighbour of each to swap it with."""
    folder = tmp_path / "files"
    folder.mkdir()
    for n, prefix in enumerate(("", "other-")):
        record = {"a": [1, 2 + n], "b": {"c": "text", "d": 0.5}}
        (folder / f"{prefix}record.json").write_text(json.dumps(record))
        (folder / f"{prefix}log.jsonl").write_text("".join(json.dumps({**record, "n": i}) + "\n" for i in range(3)))
        pq.write_table(pa.table({"a": [1, 2, n], "b": ["x", "y", "z"]}), folder / f"{prefix}table.parquet")
        tensors = {"w": np.full((3, 4), n, np.float32)}
        save_file(tensors, folder / f"{prefix}weights.safetensors", metadata={"state": "{}"})
        (folder / f"{prefix}shard").write_bytes(bytes(range(n, 64 + n)))
    (tmp_path / "outside").mkdir()
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_mutation_changes_what_is_there_and_the_seed_says_how(files: Path, name: str) -> None:
    before, kept = snapshot(files), files.parent / "kept"
    shutil.copytree(files, kept)
    done: list[list[tuple[str, str]]] = []
    changes = 0
    for _ in range(2):
        done.append([])
        for seed in range(60):
            words = mutations.mutate(files / name, Random(seed), files.parent / "outside")
            done[-1].append(words)
            changes += snapshot(files) != before or words[0] in ("forbid", "link_out")
            shutil.rmtree(files)
            shutil.rmtree(files.parent / "outside")
            (files.parent / "outside").mkdir()
            shutil.copytree(kept, files)
    assert done[0] == done[1]
    assert changes > 100  # of 120: a key of another name can end where it was


def test_what_says_the_same_is_the_same_in_a_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "zarr.json"
    said = []
    for content in ({"shape": [1], "storage_transformers": []}, {"shape": [1]}, {"shape": [1], "attributes": []}):
        path.write_text(json.dumps(content))
        said.append(snapshot(tmp_path))
    assert said[0] == said[1] != said[2]


def test_json_gets_values_that_json_itself_cannot_write(files: Path) -> None:
    path = files / "record.json"
    texts = set[str]()
    for seed in range(200):
        kept = path.read_text()
        json_mutations.put_monster(path, Random(seed), files)
        texts.add(path.read_text())
        path.write_text(kept)
    assert any("[" * 10_000 in text for text in texts)
    assert any("9" * 5000 in text for text in texts)


def test_a_mutated_table_is_still_parquet(files: Path) -> None:
    path = files / "table.parquet"
    kept = path.read_bytes()
    for number, mutation in enumerate(dict.fromkeys(table_mutations.MUTATIONS)):
        assert mutation(path, Random(number), files) is not None
        assert pq.read_metadata(path).num_columns >= 1
        path.write_bytes(kept)


def test_a_value_can_be_missing_from_a_column_that_is_to_have_all(files: Path) -> None:
    path = files / "table.parquet"
    table = pa.table({"n": [1, 2, 3]}, schema=pa.schema([pa.field("n", pa.int64(), nullable=False)]))
    done = set[str | None]()
    for seed in range(20):
        pq.write_table(table, path)
        words = table_mutations.change_value(path, Random(seed), files)
        done.add(words and words.partition(" into ")[0])
        if words and words.startswith("put None"):
            assert pq.read_table(path)["n"].null_count == 1
    assert "put None" in done


def test_a_header_of_tensors_stays_json_where_its_length_is_right(files: Path) -> None:
    path = files / "weights.safetensors"
    kept = path.read_bytes()
    for number, mutation in enumerate(dict.fromkeys(tensor_mutations.MUTATIONS)):
        assert mutation(path, Random(number), files) is not None
        data = path.read_bytes()
        (n,) = struct.unpack("<Q", data[:8])
        if mutation is not tensor_mutations.change_header_length:
            assert "w" in json.loads(data[8 : 8 + n]) or "other" in json.loads(data[8 : 8 + n])
        path.write_bytes(kept)
