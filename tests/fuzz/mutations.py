"""Ways to spoil a file: its bytes, what stands in its place, and, where its format is known, what it says.

A mutation is a function of the file, a source of chance and the folder outside of the world that nothing may write to.
It returns what it did, in words; None where it does not apply to this file, which is then as it was.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz import json_mutations, table_mutations, tensor_mutations

Mutation = Callable[[Path, Random, Path], str | None]

EXTREMES = (
    *(
        value.to_bytes(size, "little", signed=True)
        for size in (4, 8)
        for value in (-1, 0, 2 ** (8 * size - 1) - 1, -(2 ** (8 * size - 1)), 10**9)
    ),
    *(struct.pack(form, value) for form in ("<f", "<d") for value in (float("nan"), float("inf"))),
)
"""Little-endian whole numbers, and NaN and infinity in 32 and 64 bits."""


def _place(size: int, rng: Random) -> int:
    """A position in a file: anywhere, or near its beginning or end, where headers and indices are."""
    return rng.choice((rng.randrange(size), rng.randrange(min(size, 2048)), size - 1 - rng.randrange(min(size, 512))))


def flip_bits(path: Path, rng: Random, _: Path) -> str | None:
    """Flip one bit or a few."""
    data = bytearray(path.read_bytes())
    if not data:
        return None
    places = sorted({(_place(len(data), rng), rng.randrange(8)) for _ in range(rng.choice((1, 1, 1, 3, 16)))})
    for place, bit in places:
        data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"flipped bits {', '.join(f'{bit} of byte {place}' for place, bit in places[:4])} of {len(data)} bytes"


def delete_bytes(path: Path, rng: Random, _: Path) -> str | None:
    """Take some bytes out."""
    data = path.read_bytes()
    if not data:
        return None
    start, n = _place(len(data), rng), rng.choice((1, 2, 7, 64))
    path.write_bytes(data[:start] + data[start + n :])
    return f"deleted {n} bytes from byte {start}"


def insert_bytes(path: Path, rng: Random, _: Path) -> str | None:
    """Put some bytes in."""
    data = path.read_bytes()
    start, new = _place(len(data) + 1, rng), rng.choice((b"\x00", b"\n", b"\xff", b"\xef\xbb\xbf", rng.randbytes(33)))
    path.write_bytes(data[:start] + new + data[start:])
    return f"inserted {new!r} at byte {start}"


def overwrite_number(path: Path, rng: Random, _: Path) -> str | None:
    """Write an extreme number over an aligned place."""
    data = bytearray(path.read_bytes())
    new = rng.choice(EXTREMES)
    if len(data) < len(new):
        return None
    start = _place(len(data) - len(new) + 1, rng) // len(new) * len(new)
    data[start : start + len(new)] = new
    path.write_bytes(data)
    return f"wrote {new.hex()} at byte {start}"


def truncate(path: Path, rng: Random, _: Path) -> str | None:
    """Cut the end off."""
    size = path.stat().st_size
    if not size:
        return None
    left = rng.choice((size // 2, size - 1, _place(size, rng)))
    os.truncate(path, left)
    return f"cut to {left} of {size} bytes"


def empty(path: Path, _: Random, __: Path) -> str | None:
    """Leave nothing in it."""
    path.write_bytes(b"")
    return "emptied"


def grow(path: Path, rng: Random, _: Path) -> str | None:
    """Append zeros, text or itself."""
    data = path.read_bytes()
    added, words = rng.choice(((b"\x00" * 4096, "4096 zeros"), (b"garbage\n", "a line"), (data, "itself")))
    path.write_bytes(data + added)
    return f"appended {words}"


def remove(path: Path, _: Random, __: Path) -> str | None:
    """Delete it."""
    path.unlink()
    return "removed"


def make_folder(path: Path, rng: Random, _: Path) -> str | None:
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()
    if rng.random() < 0.5:
        (path / "inside").write_text("a file in a folder where a file should be")
    return "replaced by a folder"


def link_out(path: Path, rng: Random, outside: Path) -> str | None:
    """Move it out of the world and leave a link to it, or a link to nothing."""
    target = outside / f"moved-{path.name}"
    if rng.random() < 0.7:
        shutil.move(path, target)
    else:
        path.unlink()
    path.symlink_to(target)
    return "replaced by a link out of the run" + ("" if target.exists() else " to nothing")


def make_fifo(path: Path, _: Random, __: Path) -> str | None:
    """Put a named pipe in its place, which nobody writes to."""
    path.unlink()
    os.mkfifo(path)
    return "replaced by a FIFO"


def link_zeros(path: Path, _: Random, __: Path) -> str | None:
    """Link to a device without an end."""
    path.unlink()
    path.symlink_to("/dev/zero")
    return "replaced by a link to /dev/zero"


def forbid(path: Path, _: Random, __: Path) -> str | None:
    """Take away all permissions; the command is run without root's right to read it all the same."""
    path.chmod(0)
    return "made unreadable"


def copy_other(path: Path, rng: Random, _: Path) -> str | None:
    """Put a copy of another file of the world there, rather one of the same suffix."""
    other = _other(path, rng)
    if other is None:
        return None
    shutil.copyfile(other, path)
    return f"replaced by a copy of {other.name}"


def swap_other(path: Path, rng: Random, _: Path) -> str | None:
    """Swap it with its neighbour of the same suffix."""
    other = _other(path, rng)
    if other is None:
        return None
    own, its = path.read_bytes(), other.read_bytes()
    path.write_bytes(its)
    other.write_bytes(own)
    return f"swapped with {other.name}"


def _other(path: Path, rng: Random) -> Path | None:
    """Another file of the same suffix, near it where there is one, with other content."""
    own = path.read_bytes()
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        pattern = f"*{path.suffix}" if path.suffix else "*"
        found = sorted(
            near
            for near in folder.rglob(pattern)
            if near != path and near.is_file() and bool(near.suffix) == bool(path.suffix) and near.read_bytes() != own
        )
        if found:
            return rng.choice(found)
    return None


BYTES: tuple[Mutation, ...] = (
    flip_bits,
    flip_bits,
    delete_bytes,
    insert_bytes,
    overwrite_number,
    truncate,
    empty,
    grow,
)
PLACES: tuple[Mutation, ...] = (
    remove,
    make_folder,
    link_out,
    make_fifo,
    link_zeros,
    forbid,
    copy_other,
    swap_other,
)
BY_SUFFIX: dict[str, tuple[Mutation, ...]] = {
    ".json": json_mutations.MUTATIONS,
    ".jsonl": json_mutations.MUTATIONS,
    ".parquet": table_mutations.MUTATIONS,
    ".safetensors": tensor_mutations.MUTATIONS,
}


def mutate(path: Path, rng: Random, outside: Path) -> tuple[str, str]:
    """Spoil a file in a random way.

    Returns:
        Name of the mutation, and what it did.
    """
    known = BY_SUFFIX.get(path.suffix, ())
    while True:
        mutation = rng.choice(rng.choice((BYTES, PLACES, known or BYTES, known or BYTES)))
        done = mutation(path, rng, outside)
        if done is not None:
            return mutation.__name__, done
