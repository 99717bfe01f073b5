"""Whether two runs hold the same results: SHA-256 of every table, array and weight of each.

    python -m tests.table_hashes runs/demo                 print them
    python -m tests.table_hashes runs/demo runs/other      name the files that differ, and exit with 1 if any does

A change that only moves code leaves all of them as they were.
"""

import argparse
import hashlib
import sys
from pathlib import Path

RESULTS = ("**/*.parquet", "**/*.safetensors", "**/*.zarr/**/c/**/*")


def hashes(run: Path) -> dict[str, str]:
    """The SHA-256 of each file of results, by its path in the run; checkpoints and videos left out."""
    found = {path for pattern in RESULTS for path in run.glob(pattern) if path.is_file()}
    kept = sorted(path for path in found if "checkpoints" not in path.parts)
    return {path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    arguments = parser.parse_args()
    first = hashes(arguments.run)
    if not first:
        parser.error(f"{arguments.run} holds no results")
    if arguments.other is None:
        sys.stdout.writelines(f"{digest}  {name}\n" for name, digest in first.items())
        return 0
    second = hashes(arguments.other)
    differing = [name for name in sorted(first.keys() | second.keys()) if first.get(name) != second.get(name)]
    sys.stdout.write("\n".join(differing) + "\n" if differing else f"{len(first)} files are identical\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
