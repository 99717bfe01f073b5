"""The copy of the codes by latent: an external partition in one pass over the codes by token.

1. Spill: blocks of tokens are read in order, and their entries go to a file per range of latents, the *bucket*.
2. Write: each bucket is sorted by latent and appended to the matrix. Its entries lie in the order of the tokens, so a
   stable sort of the latents within the bucket is all that is needed.

Memory is that of a block of tokens, or of `MAX_ENTRIES` entries of a bucket (more where a single latent has more). Both
steps go on where they were when the process is killed: the files of the first are cut to what its progress file says,
the second is a `features.codes_writer`.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from collect.artefact.folder import read_object, write_json
from collect.artefact.json_fields import Fields
from collect.errors import UserError
from collect.printable import printable
from features.codes import BLOCK_TOKENS, Codes
from features.codes_files import check_seal, damaged, remedy
from features.codes_writer import CodesWriter, remove_codes

log = logging.getLogger(__name__)

SPILL_SUFFIX = ".spill"
PROGRESS_NAME = "progress.json"
MAX_BUCKETS = 256
MAX_BUCKET_LATENTS = 1 << 16
MAX_ENTRIES = 1 << 24
"""Entries that are sorted at once, which takes about 40 bytes each; a bucket holds as many on average, or fewer."""
RECORD = np.dtype([("latent", "<u2"), ("token", "<i4"), ("value", "<f4")])
"""An entry in a bucket's file; the latent counts from the bucket's first."""


def write_by_latent(codes: Codes) -> None:
    """Write the copy by latent of finished codes, unless it is there.

    Raises:
        UserError: there are more tokens than 32 bits count, or what was begun is damaged.
    """
    folder = codes.by_latent_folder
    spill = folder.with_name(folder.name + SPILL_SUFFIX)
    if _is_copy(codes):
        shutil.rmtree(spill, ignore_errors=True)
        return
    if codes.n_tokens >= 2**31:
        raise UserError(f"{printable(codes.folder, 4096)} has more than {2**31} tokens: features of fewer videos.")
    writer = CodesWriter(folder, codes.d_sae, codes.by_latent_attributes)
    cuts = bucket_cuts(codes.n_nonzeros, codes.d_sae)
    checks = _spill(codes, spill, cuts)
    with tqdm(total=codes.d_sae, initial=writer.n_done, unit="latents", desc="codes by latent") as bar:
        for bucket, (first, stop) in enumerate(itertools.pairwise(cuts)):
            if stop > writer.n_done:
                _append(writer, spill / str(bucket), first, stop - first, checks[bucket])
            bar.update(max(writer.n_done - bar.n, 0))
    writer.finish()
    shutil.rmtree(spill)


def bucket_cuts(n_nonzeros: int, d_sae: int) -> list[int]:
    """First latent of each bucket, and the number of latents."""
    n = max(-(-n_nonzeros // MAX_ENTRIES), -(-d_sae // MAX_BUCKET_LATENTS), 1)
    n = min(n, MAX_BUCKETS, d_sae) if d_sae <= MAX_BUCKETS * MAX_BUCKET_LATENTS else -(-d_sae // MAX_BUCKET_LATENTS)
    return [d_sae * bucket // n for bucket in range(n + 1)]


def remove_by_latent(folder: Path) -> None:
    """Remove the copy by latent, and what was begun of it."""
    remove_codes(folder)
    shutil.rmtree(folder.with_name(folder.name + SPILL_SUFFIX), ignore_errors=True)


def _is_copy(codes: Codes) -> bool:
    """Whether the copy is there. One that is damaged or of other codes is removed, with what was begun of it."""
    folder = codes.by_latent_folder
    if not folder.exists():
        return False
    try:
        if check_seal(folder)["of"] == codes.by_latent_attributes["of"]:
            return True
        log.warning("%s is not a copy of these codes: it is made again.", folder)
    except (UserError, KeyError) as error:
        log.warning("%s It is made again.", printable(error, 1000))
    remove_codes(folder)
    return False


def _spill(codes: Codes, folder: Path, cuts: list[int]) -> list[int]:
    """Write the buckets' files, or go on with them; returns the crc32 of each."""
    n_buckets = len(cuts) - 1
    of = str(codes.by_latent_attributes["of"])
    n_done, sizes, checks = _read_progress(folder / PROGRESS_NAME, of, n_buckets)
    if not n_done:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for bucket, size in enumerate(sizes):
        with (folder / str(bucket)).open("ab") as file:
            if file.tell() < size:
                raise damaged(folder, f"file {bucket} is shorter than {PROGRESS_NAME} says")
            file.truncate(size)
    bucket_of = np.repeat(np.arange(n_buckets, dtype=np.uint16), np.diff(cuts))
    with tqdm(total=codes.n_tokens, initial=n_done, unit="tokens", unit_scale=True, desc="partition") as bar:
        for start in range(n_done, codes.n_tokens, BLOCK_TOKENS):
            stop = min(start + BLOCK_TOKENS, codes.n_tokens)
            block = codes.rows(start, stop)
            tokens = np.repeat(np.arange(start, stop, dtype=np.int32), np.diff(block.indptr))
            buckets = bucket_of[block.indices]
            order = np.argsort(buckets, kind="stable")
            records = np.empty(len(order), dtype=RECORD)
            records["latent"] = (block.indices - np.asarray(cuts, dtype=np.int32)[buckets])[order]
            records["token"] = tokens[order]
            records["value"] = block.data[order]
            ends = np.cumsum(np.bincount(buckets, minlength=n_buckets)).tolist()
            for bucket, (first, end) in enumerate(itertools.pairwise([0, *ends])):
                if end > first:
                    content = records[first:end].tobytes()
                    with (folder / str(bucket)).open("ab") as file:
                        file.write(content)
                    sizes[bucket] += len(content)
                    checks[bucket] = zlib.crc32(content, checks[bucket])
            write_json(folder / PROGRESS_NAME, {"of": of, "n_tokens": stop, "sizes": sizes, "crc32": checks})
            bar.update(stop - start)
    return checks


def _append(writer: CodesWriter, path: Path, first: int, n_latents: int, check: int) -> None:
    """Append the latents of one bucket, as many at a time as memory allows."""
    counts = np.zeros(n_latents, dtype=np.int64)
    crc = 0
    for records in _pieces(path):
        counts += np.bincount(records["latent"], minlength=n_latents)
        crc = zlib.crc32(records.tobytes(), crc)
    if crc != check:
        raise damaged(path.parent, f"file {path.name} fails its checksum")
    for start, stop in writer.left([first + cut for cut in _groups(counts)]):
        low, high = start - first, stop - first
        parts = [records[(records["latent"] >= low) & (records["latent"] < high)] for records in _pieces(path)]
        chosen = np.concatenate([np.empty(0, dtype=RECORD), *parts])
        order = np.argsort(chosen["latent"], kind="stable")
        pointers = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts[low:high])])
        writer.append(pointers, chosen["token"][order], chosen["value"][order])


def _groups(counts: Int64[np.ndarray, " latent"]) -> list[int]:
    """Cuts between groups of consecutive latents with at most `MAX_ENTRIES` entries, or one latent."""
    ends = np.cumsum(counts)
    cuts = [0]
    while cuts[-1] < len(counts):
        before = ends[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(max(int(np.searchsorted(ends, before + MAX_ENTRIES, side="right")), cuts[-1] + 1))
    return cuts


def _pieces(path: Path) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        while len(records := np.fromfile(file, dtype=RECORD, count=MAX_ENTRIES)):
            yield records


def _read_progress(path: Path, of: str, n_buckets: int) -> tuple[int, list[int], list[int]]:
    """Finished tokens, and the length and crc32 of each file; nothing is finished of other codes, or without a file."""
    nothing = 0, [0] * n_buckets, [0] * n_buckets
    if not path.exists():
        return nothing
    fields = Fields(read_object(path, remedy(path.parent)), printable(path, 4096), remedy(path.parent))
    if fields.text("of") != of:
        return nothing
    sizes, checks = (fields.array(name, dtype=np.int64).tolist() for name in ("sizes", "crc32"))
    if {len(sizes), len(checks)} != {n_buckets}:
        raise fields.error("sizes", f"{n_buckets} numbers")
    return fields.count("n_tokens"), sizes, checks
