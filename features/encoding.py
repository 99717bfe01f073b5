"""From a store and an SAE to the codes of every stored token, in both orders.

A process alone writes `codes.zarr` directly. Of several, each encodes a share of the batches into a matrix of its own,
and the first joins them. Batches are cut at the same tokens whoever encodes them, so that the codes are the same.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from tqdm import tqdm

from collect.errors import UserError
from collect.printable import printable
from collect.reading import ActivationStore
from features.codes import BLOCK_TOKENS, BY_LATENT_NAME, Codes
from features.codes_by_latent import remove_by_latent, write_by_latent
from features.codes_files import damaged
from features.codes_writer import PARTIAL_SUFFIX, CodesWriter, remove_codes
from features.division import ALONE, Division
from train_sae.sae import Sae

log = logging.getLogger(__name__)


def encode_store(
    store: ActivationStore,
    sae: Sae,
    folder: Path,
    *,
    batch_size: int,
    device: torch.device,
    name: str = "the SAE",
    division: Division = ALONE,
) -> Codes:
    """Encode all tokens of the SAE's site and write the codes, by token and by latent.

    Args:
        store: activations, read in order.
        sae: encodes raw residuals.
        folder: `codes.zarr`; left alone if it is there and holds codes of this store and SAE for every token.
        batch_size: tokens encoded at once; a sequential SAE encodes one whole video at once.
        device: where to encode.
        name: what the SAE is called in messages.
        division: the processes that share the batches.

    Raises:
        UserError: the SAE gives activations that are not finite, or codes that were begun are damaged.
    """
    if not division.agree(lambda: _is_whole(folder, store, sae, division.n)):
        cuts = _batches(store, sae, batch_size)
        attributes = {"d_sae": sae.d_sae, "site": sae.site}
        if division.n == 1:
            _encode(CodesWriter(folder, store.n_tokens, attributes), store, sae.to(device), cuts, name)
        else:
            parts = [folder.with_name(f"{folder.name}.{place}-of-{division.n}") for place in range(division.n)]
            _encode_part(parts[division.place], store, sae.to(device), cuts[_share(division, len(cuts) - 1)], name)
            division.meet()
            division.agree(lambda: _join(folder, parts, store, sae))
    codes = Codes.open(folder, n_tokens=store.n_tokens, d_sae=sae.d_sae)
    division.agree(lambda: write_by_latent(codes))
    return codes


def encode_tokens(sae: Sae, x: torch.Tensor) -> sparse.csr_array:
    """Latent activations of raw residuals x [token, d_in] as a matrix [token, latent] with sorted indices."""
    indices, values, pointers = sae.encode_sparse(x.float())
    codes = sparse.csr_array(
        (
            values.detach().float().cpu().numpy(),
            indices.cpu().numpy().astype(np.int32),
            pointers.cpu().numpy().astype(np.int64),
        ),
        shape=(len(x), sae.d_sae),
    )
    codes.eliminate_zeros()
    codes.sort_indices()
    return codes


def _batches(store: ActivationStore, sae: Sae, batch_size: int) -> list[int]:
    """First token of each batch, and the number of tokens."""
    if sae.is_sequential:
        return [0, *(video.row_stop for video in store.videos)]
    return [*range(0, store.n_tokens, batch_size), store.n_tokens]


def _share(division: Division, n_batches: int) -> slice:
    """The cuts of this process's batches; neighbours share the one between them."""
    own = division.share(n_batches)
    return slice(own.start, own.stop + 1)


def _encode(writer: CodesWriter, store: ActivationStore, sae: Sae, cuts: list[int], name: str) -> None:
    """Write the codes of the batches between the cuts, and finish the matrix."""
    if writer.n_done:
        log.info("%s: going on at token %d of %d.", writer.folder, writer.n_done, writer.n_rows)
    with tqdm(total=writer.n_rows, initial=writer.n_done, unit="tokens", unit_scale=True, desc="encode") as bar:
        for start, stop in writer.left([cut - cuts[0] for cut in cuts]):
            x = store.read(sae.site, cuts[0] + start, cuts[0] + stop)
            codes = encode_tokens(sae, x.to(sae.W_enc.device))
            if not np.isfinite(codes.data).all():  # finite weights can still be so large that their products are not
                latent = int(codes.indices[~np.isfinite(codes.data)][0])
                raise UserError(
                    f"{printable(name, 4096)} gives activations that are not finite, of latent {latent} for one: its "
                    "weights are too large for these residuals; restore it, train it again, or name another SAE."
                )
            writer.append(codes.indptr, codes.indices, codes.data)
            bar.update(stop - start)
    writer.finish()


def _encode_part(folder: Path, store: ActivationStore, sae: Sae, cuts: list[int], name: str) -> None:
    if not folder.exists():
        attributes = {"d_sae": sae.d_sae, "site": sae.site}
        _encode(CodesWriter(folder, cuts[-1] - cuts[0], attributes), store, sae, cuts, name)


def _join(folder: Path, parts: list[Path], store: ActivationStore, sae: Sae) -> None:
    """Write the parts one behind the other, and remove them.

    Raises:
        UserError: one is damaged, or they are not of this store.
    """
    opened = [Codes.open(part, d_sae=sae.d_sae) for part in parts]
    ends = np.cumsum([0, *(part.n_tokens for part in opened)]).tolist()
    if ends[-1] != store.n_tokens:
        raise damaged(parts[0], "it is of another store")
    cuts = [
        (place, cut) for place, n in enumerate(part.n_tokens for part in opened) for cut in range(0, n, BLOCK_TOKENS)
    ]
    writer = CodesWriter(folder, store.n_tokens, {"d_sae": sae.d_sae, "site": sae.site})
    place_of = {ends[place] + cut: (place, cut) for place, cut in cuts}
    for start, stop in writer.left([*place_of, store.n_tokens]):
        place, cut = place_of[start]
        block = opened[place].rows(cut, cut + stop - start)
        writer.append(block.indptr, block.indices, block.data)
    writer.finish()
    for part in parts:
        remove_codes(part)


def _is_whole(folder: Path, store: ActivationStore, sae: Sae, n_processes: int) -> bool:
    """Whether the codes were made before. Those that are damaged or of another store or SAE are removed, which is said.

    So are parts that another number of processes left, and all parts once they are joined.
    """
    for part in folder.parent.glob(f"{folder.name}.*-of-*"):
        if folder.exists() or not part.name.removesuffix(PARTIAL_SUFFIX).endswith(f"-of-{n_processes}"):
            shutil.rmtree(part)
    if not folder.exists():
        return False
    try:
        codes = Codes.open(folder, n_tokens=store.n_tokens, d_sae=sae.d_sae)
    except UserError as error:
        log.warning("%s They are made again.", printable(error, 1000))
    else:
        if codes.attributes.get("site") == sae.site:
            log.info("%s is complete.", folder)
            return True
        log.warning("%s holds the codes of another site: they are made again.", folder)
    remove_codes(folder)
    remove_by_latent(folder.with_name(BY_LATENT_NAME))
    return False
