"""`manifest.json`: the store's table of contents, made from the ranks' logs once all of them are complete."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from collect.artefact import write_atomic
from collect.assignment import Progress
from collect.commit_log import read_log
from collect.errors import UserError
from collect.store import FORMAT, FORMAT_VERSION, MANIFEST_NAME


def read_progress(folder: Path, ranks: Iterable[int]) -> dict[int, Progress]:
    """What the log of each rank says; ranks that have none yet are left out.

    Raises:
        UserError: a log cannot be read or is damaged.
    """
    progress: dict[int, Progress] = {}
    for rank in ranks:
        path = folder / f"rank-{rank}.jsonl"
        if path.exists():
            commits = read_log(path)[1:]
            progress[rank] = Progress(
                committed=frozenset(e["index"] for commit in commits for e in (*commit["videos"], *commit["failures"])),
                partial=commits[-1]["partial"] if commits else None,
                is_final=bool(commits) and bool(commits[-1]["final"]),
            )
    return progress


def write_manifest(folder: Path, ranks: Iterable[int]) -> dict[str, Any]:
    """Write the manifest over complete ranks, in the given order; every process that does so writes the same bytes.

    Raises:
        UserError: no rank has a video; the message has the first failure's reason.
    """
    entries: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    header: dict[str, Any] = {}
    for rank in ranks:
        header, *commits = read_log(folder / f"rank-{rank}.jsonl")
        failures += [failure for commit in commits for failure in commit["failures"]]
        entries.append(
            {
                "zarr": f"rank-{rank}.zarr",
                "log": f"rank-{rank}.jsonl",
                "n_tokens": commits[-1]["row_stop"],
                "n_videos": sum(len(commit["videos"]) for commit in commits),
            }
        )
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "sites": header["sites"],
        "shard_rows": header["shard_rows"],
        "chunk_rows": header["chunk_rows"],
        "n_tokens": sum(entry["n_tokens"] for entry in entries),
        "n_videos": sum(entry["n_videos"] for entry in entries),
        "ranks": entries,
        "model": header["model"],
        "failures": sorted(failures, key=lambda failure: failure["index"]),
    }
    if not manifest["n_tokens"]:
        reason = (
            min(failures, key=lambda failure: failure["index"])["reason"]
            if failures
            else "none of their tokens is wanted"
        )
        raise UserError(f"No video could be collected into {folder}: {reason}")
    write_atomic(folder / MANIFEST_NAME, json.dumps(manifest, indent=2) + "\n")
    return manifest
