"""Quality of a trained SAE on the held-out videos of the store that it was trained on."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from collect.data.split import held_out_ids
from collect.errors import UserError
from collect.reading import ActivationStore
from train_sae.batches.loader import TokenLoader
from train_sae.batches.shard_reader import ShardReader
from train_sae.batches.token_set import TokenSet, VideoSplit, filtered_rows, split_by_video
from train_sae.quality.metrics import Coherence, Quality, decoder_coherence, evaluate
from train_sae.sae import Sae

BATCH_SIZE = 4096


def held_out_quality(store: ActivationStore, sae: Sae, limit: int, seed: int) -> tuple[Quality, Coherence]:
    """Measure an SAE on held-out videos, on the tokens that pass the filters of its training.

    Args:
        store: what it was trained on.
        sae: on the device that does the work; its metadata name the filters.
        limit: most tokens, drawn at random.
        seed: seed of the draw.

    Raises:
        UserError: no token of a held-out video passes the filters.
    """
    split = split_by_video(store.videos, held_out_ids((video.video_id, video.split) for video in store.videos))
    tokens = TokenSet(split.held_out, filtered_rows(store, sae.site, _filters(store, sae)))
    if not tokens.n_tokens:
        raise UserError(f"{store.folder} has no tokens of held-out videos that its SAE could be evaluated on.")
    if sae.is_sequential:
        ((quality, _),) = evaluate([sae], _whole_videos(store, sae, split, limit))
        return quality, decoder_coherence(sae.W_dec)
    reader = ShardReader(store.shards(sae.site), store.dtype(sae.site))
    loader = TokenLoader(reader, tokens, batch_size=BATCH_SIZE, seed=seed, device=torch.device(sae.W_dec.device))
    ((quality, _),) = evaluate([sae], loader.sample(limit))
    return quality, decoder_coherence(sae.W_dec)


def _filters(store: ActivationStore, sae: Sae) -> tuple[str, ...]:
    """The filters of the SAE's training, as far as they apply: a mask belongs to the store it was made for."""
    training = sae.metadata.get("training")
    found = cast("dict[str, Any]", training).get("tokens") if isinstance(training, dict) else None
    if sae.is_sequential or not isinstance(found, list | tuple):
        return ()
    same_store = sae.fingerprint == store.fingerprint
    filters = [text for text in cast("Sequence[object]", found) if isinstance(text, str)]
    return tuple(text for text in filters if same_store or not text.startswith("mask:"))


def _whole_videos(store: ActivationStore, sae: Sae, split: VideoSplit, limit: int) -> Iterator[Tensor]:
    """Residuals of held-out videos, each in order, until there are enough."""
    for rows in split.held_out:
        if limit <= 0:
            return
        yield store.read(sae.site, rows.start, rows.stop).float()
        limit -= rows.stop - rows.start
