"""Shards as they are in a compressed archive: the same rows and chunks, Blosc with zstd and bit shuffling, then crc32c.

zarr makes and reads them, one at a time and in memory; what happens to the bytes is decided elsewhere.
"""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from collect.store.rank_log import Layout
from collect.store.zarr_arrays import METADATA_NAME, create_array

_SHARD = "c/0/0"


def encode_shard(rows: Shaped[np.ndarray, "row d"], layout: Layout, array: str) -> bytes:
    """Encode the rows of one shard.

    Args:
        rows: at most `layout.shard_rows`.
        layout: sites and sizes.
        array: a site, or `coords`.
    """
    import obstore
    from obstore.store import MemoryStore

    memory = MemoryStore()
    _declare(memory, layout, array, layout.shard_rows)[: len(rows)] = rows
    return bytes(obstore.get(memory, _SHARD).bytes())


def decode_shard(data: bytes, n_rows: int, layout: Layout, array: str) -> Shaped[np.ndarray, "row d"]:
    """Rows of an encoded shard, in the store's type.

    Raises:
        ValueError: it is not one.
    """
    import obstore
    from obstore.store import MemoryStore

    memory = MemoryStore()
    declared = _declare(memory, layout, array, layout.shard_rows)
    obstore.put(memory, _SHARD, data)
    try:
        rows = declared[:n_rows]
    except Exception as error:  # zarr and its codecs may raise anything
        raise ValueError(str(error)) from None
    return np.ascontiguousarray(rows).astype(layout.arrays()[array][1], copy=False)


def encoded_metadata(layout: Layout, array: str, n_rows: int) -> bytes:
    """The `zarr.json` by which plain zarr reads encoded shards."""
    import obstore
    from obstore.store import MemoryStore

    memory = MemoryStore()
    _declare(memory, layout, array, n_rows)
    return bytes(obstore.get(memory, METADATA_NAME).bytes())


def _declare(memory: Any, layout: Layout, array: str, n_rows: int) -> Any:
    from zarr.codecs import BloscCodec, Crc32cCodec
    from zarr.storage import ObjectStore

    itemsize = layout.arrays()[array][1].itemsize
    codecs = [BloscCodec(typesize=itemsize, cname="zstd", shuffle="bitshuffle"), Crc32cCodec()]
    return create_array(ObjectStore(memory), "", layout, array, n_rows, codecs)
