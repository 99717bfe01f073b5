"""The Zarr side of a rank's store: declares its arrays, so that plain zarr can read the shard files.

`zarr.json` is written by zarr, and later only its number of rows is changed.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from collect.artefact.folder import write_atomic
from collect.artefact.inside import inside
from collect.artefact.json_file import read_json
from collect.errors import UserError
from collect.printable import printable
from collect.store.rank_log import COORDS, Layout, RankLog, log_path
from collect.store.shards import DAMAGE_REMEDY, damaged

METADATA_NAME = "zarr.json"
_MOST_BYTES = 1 << 20
_GROUP: dict[str, Any] = {"attributes": {}, "zarr_format": 3, "node_type": "group"}


def create_array(store: Any, name: str, layout: Layout, array: str, n_rows: int, compressors: Sequence[Any]) -> Any:
    """Declare one array.

    Args:
        store: anything that zarr accepts as a store.
        name: where in it.
        layout: sites and sizes.
        array: a site, or `coords`.
        n_rows: rows that are declared.
        compressors: codecs of a chunk, after the bytes.

    Returns:
        The zarr array.
    """
    import zarr

    width, dtype = layout.arrays()[array]
    is_coords = array == COORDS
    return zarr.create_array(
        store,
        name=name,
        shape=(n_rows, width),
        dtype=dtype.name,
        shards=(layout.shard_rows, width),
        chunks=(layout.chunk_rows, width),
        fill_value=0,
        dimension_names=("token", "coordinate" if is_coords else "d_in"),
        compressors=compressors,
        attributes=(
            {"columns": ["video", "t", "row", "col"]} if is_coords else {"logical_dtype": layout.sites[array]["dtype"]}
        ),
        config={"write_empty_chunks": True},
    )


def create_arrays(folder: Path, layout: Layout, n_rows: int) -> None:
    """Declare all arrays of a rank, whose folder may be there but is empty."""
    import zarr
    from zarr.codecs import Crc32cCodec

    zarr.open_group(folder, mode="w", zarr_format=3)
    for array in layout.arrays():
        create_array(folder, array, layout, array, n_rows, [Crc32cCodec()])


def cut_arrays(folder: Path, rank: int) -> None:
    """Declare a complete rank's arrays with the rows that are valid, so that plain zarr shows those and no others.

    Args:
        folder: the store.
        rank: whose log ends with its final commit.

    Raises:
        UserError: log or metadata are damaged.
    """
    log = RankLog.read(log_path(folder, rank))
    for array, (width, _) in log.layout.arrays().items():
        path = inside(folder, f"rank-{rank}.zarr/{array}/{METADATA_NAME}")
        metadata = _read(path)
        if metadata.get("shape") not in ([log.n_rows, width], [log.capacity, width]):
            raise damaged(path, "it declares another shape than the log")
        if metadata["shape"][0] != log.n_rows:
            metadata["shape"] = [log.n_rows, width]
            write_atomic(path, json.dumps(metadata, indent=2) + "\n")


def wrong_declarations(log: RankLog) -> Iterator[tuple[Path, str]]:
    """Metadata of a rank that declare something other than its log needs, each with the reason."""
    folder = log.path.with_suffix(".zarr")
    n_rows = log.n_rows if log.is_final else log.capacity
    parts = [array.split("/") for array in log.layout.arrays()]
    groups = {"/".join(names[:depth]) for names in parts for depth in range(len(names))}
    for group in sorted(groups):
        path = folder / group / METADATA_NAME
        reason = _wrong_group(folder, path)
        if reason is not None:
            yield path, reason
    for array in log.layout.arrays():
        path = folder / array / METADATA_NAME
        # The array is cut to its rows after the last commit; an interruption can delay this until the next run.
        reason = _wrong_array(folder, path, log.layout, array, (n_rows, log.capacity))
        if reason is not None:
            yield path, reason


def _wrong_group(folder: Path, path: Path) -> str | None:
    try:
        content = _read(inside(folder, str(path.relative_to(folder))))
    except UserError as error:
        return str(error)
    is_consolidated = content.pop("consolidated_metadata", None) is not None  # some releases write that it is not
    return None if content == _GROUP and not is_consolidated else "it does not declare a group of Zarr v3"


def _wrong_array(folder: Path, path: Path, layout: Layout, array: str, n_rows: tuple[int, int]) -> str | None:
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    try:
        content = _read(inside(folder, str(path.relative_to(folder))))
    except UserError as error:
        return str(error)
    width = layout.arrays()[array][0]
    shape: Any = content.get("shape")
    if shape not in ([rows, width] for rows in n_rows):
        return f"it declares {printable(shape, 60)} where the log needs {[n_rows[0], width]}"
    wanted: Any = create_array(MemoryStore(), "", layout, array, shape[0], [Crc32cCodec()])
    try:
        # Both as zarr itself reads them, since its releases write the same thing in more than one way.
        found = cast("Any", zarr.open_array(path.parent, mode="r")).metadata
    except Exception as error:  # whatever zarr raises for metadata that it does not understand
        return f"zarr cannot read it ({printable(error, 120)})"
    return None if found == wanted.metadata else "it declares another array than the log needs"


def _read(path: Path) -> dict[str, Any]:
    content: object = read_json(path, DAMAGE_REMEDY, _MOST_BYTES)
    if not isinstance(content, dict):
        raise damaged(path, "it is not the JSON that zarr writes")
    return cast("dict[str, Any]", content)
