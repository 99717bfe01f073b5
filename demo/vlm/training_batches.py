"""Batches of the demo model's training: single frames, and videos with packed questions, drawn ahead on a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demo.vlm.training_data import Pool, Texts, pack_texts
from demo.world.scene import SAMPLES

FAVOURED_SHARE = 0.8


@dataclass(frozen=True, kw_only=True)
class Frames:
    """One batch of single frames."""

    pixels: Tensor  # uint8 [N, px, px, 3]
    gain: Tensor  # [N, 3] factor of every channel that normalises to about [-1, 1]
    seen: Tensor  # bool [N, grid², n_seen]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Videos with their labels and packed questions."""

    videos: Tensor  # [B] row in the pool
    seen: Tensor  # bool [B, V, n_seen]
    happened: Tensor  # bool [B, V, n_happened]
    ids: Tensor  # the rest as in `Texts`
    block: Tensor
    place: Tensor
    last: Tensor
    options: Tensor
    correct: Tensor
    answer: Tensor
    asked: Tensor
    relevant: Tensor

    def with_options(self) -> tuple[Tensor, Tensor]:
        """Video and block number of the questions that offer options."""
        rows, blocks = (self.options[..., 0] >= 0).nonzero(as_tuple=True)
        return rows, blocks

    def readers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Video, block and text position of every block's last token and option words: those that need the answer."""
        positions = torch.cat([self.last[..., None], self.options], -1)
        rows, blocks, which = (positions >= 0).nonzero(as_tuple=True)
        return rows, blocks, positions[rows, blocks, which]


def draw_frames(pool: Pool, n: int, rng: np.random.Generator) -> Frames:
    """`n` single frames of random videos in random light."""
    videos, which = np.sort(rng.integers(0, len(pool), n)), rng.integers(0, SAMPLES, n)
    seen = pool.labels(videos)[0].reshape(n, SAMPLES, pool.grid**2, -1)[np.arange(n), which]
    gain = rng.uniform(0.9, 1.1, (n, 1)) * rng.uniform(0.97, 1.03, (n, 3)) / 127.5
    return Frames(
        pixels=torch.from_numpy(pool.frames[videos, which]),
        gain=torch.from_numpy(gain.astype(np.float32)),
        seen=torch.from_numpy(seen),
    )


def draw_batch(
    pool: Pool,
    tokenizer: Any,
    n: int,
    rng: np.random.Generator,
    *,
    blocks: int,
    words: float,
    favoured: Collection[str] = (),
) -> Batch:
    """`n` random videos with `blocks` questions each, of which a share `words` comes without options.

    If some kinds of questions are favoured (these are about tabletops), most of the videos show a tabletop.
    """
    videos = np.sort(rng.integers(0, len(pool), n))
    if favoured:
        videos = np.where(rng.random(n) < FAVOURED_SHARE, rng.choice(pool.tabletop, n), videos)
    seen, happened = pool.labels(videos)
    texts = pack_texts(pool, videos, tokenizer, rng, blocks=blocks, length=27 * blocks, words=words, favoured=favoured)
    arrays = {"videos": videos, "seen": seen, "happened": happened}
    arrays |= {field.name: getattr(texts, field.name) for field in fields(Texts)}
    return Batch(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def prefetch(draw: Callable[[np.random.Generator, int], Any], seed: int, first: int, steps: int) -> Iterator[Any]:
    """Batches number first..steps, drawn on a background thread, each from its own seed."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=3)

    def work() -> None:
        for step in range(first, steps):
            try:
                ready.put(draw(np.random.default_rng([seed, step]), step))
            except BaseException as error:  # raised again where the batch is used
                ready.put(error)
                return

    threading.Thread(target=work, daemon=True).start()
    for _ in range(first, steps):
        batch = ready.get()
        if isinstance(batch, BaseException):
            raise batch
        yield batch
