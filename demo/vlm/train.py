"""Trains the demo's PerceptionLM from scratch: `python -m demo.vlm.train --out FOLDER`.

Five stages on drawn frames of scenes that the held-out evaluation never uses. What a stage does not train is frozen, so
that the outputs of the first two are computed once for all videos:

1. *see*: vision tower and projector learn from single frames what is in every cell.
2. *watch*: decoder layers 0-1 learn from the visual tokens of all frames what happens where, and at the text's
   positions what a question is about. So far, nothing asks the text to look at the video.
3. *answer*: layers 2-5 learn to answer several questions per video. Each block of text attends to the video and itself
   only, with its own positions, so that every block is exactly the single-question prompt of the shipped model. The
   answer is thus read from visual tokens that have already worked together.
4. *finish*: the same, with gradients through the visual tokens' own path in layers 2-4, which evens out how strongly
   the things that are counted attract attention.
5. *count*, then *settle*: the same, asking more often for the number of toys of a colour or shape, the counts that
   come last; each begins with a high rate again.

The prefix is causal and does not depend on the text, so *answer* runs it without gradients: they reach the weights
through the text's own path and through the keys and values that it reads, at half the cost. At first most questions
are asked without options and answered with a word, which is easier and shares the reading. Linear heads and attention
targets guide every stage; they stay outside the model's folder, which is a plain PerceptionLM.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from collect.artefact.folder import give_usual_mode
from demo.vlm.architecture import SIZES
from demo.vlm.muon import Muon
from demo.vlm.training_batches import Batch, draw_batch, draw_frames, prefetch
from demo.vlm.training_data import Pool, build_pool
from demo.vlm.training_network import EARLY_LAYERS, Network

log = logging.getLogger("demo.vlm.train")
LOG_EVERY, SAVE_EVERY = 20, 100  # steps
TOY_COUNTS = ("toys of a colour", "toys of a shape")


@dataclass(frozen=True, kw_only=True)
class TrainVlmConfig:
    """Everything that decides the weights, besides the code."""

    out: Path
    """Folder for the model, its checkpoints and, in `pool/`, the drawn scenes."""
    videos: int = 12_032
    """Scenes to draw and learn from, 3.6 GB; the outputs of *see* and *watch* take 4.7 GB more."""
    pool_seed: int = 1000
    seed: int = 0
    see_steps: int = 1500
    see_frames: int = 64
    watch_steps: int = 1500
    answer_steps: int = 3000
    finish_steps: int = 1000
    count_steps: int = 1000
    settle_steps: int = 700
    batch: int = 8
    """Videos per step in every stage except *see*."""
    watch_blocks: int = 6
    answer_blocks: int = 13
    see_lr: float = 2e-2
    watch_lr: float = 1e-2
    answer_lr: float = 1e-2
    finish_lr: float = 4e-3
    """Peak rates of Muon; AdamW runs at half of them."""
    threads: int = 2


def cosine(step: int, steps: int, peak: float) -> float:
    """Learning rate: 50 steps of warm-up, then a cosine down to 2 % of the peak."""
    return peak * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


class Trainer(Network):
    """A network with its pool of scenes, the outputs of the finished stages, and the checkpoints."""

    def __init__(self, config: TrainVlmConfig) -> None:
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.config = config
        config.out.mkdir(parents=True, exist_ok=True)
        folder = config.out / "pool"
        if not (folder / "frames.npy").is_file():
            size = SIZES["demo"]
            build_pool(
                folder,
                seed=config.pool_seed,
                n_videos=config.videos,
                image_px=size.image_px,
                grid=size.grid,
                workers=config.threads,
            )
        self.pool = Pool(folder, config.pool_seed)
        super().__init__(config.seed)
        self.start_weights(self.pool.frames[:1500, 0])
        self.done: dict[str, int] = {}
        self.history: list[dict[str, float | int | str]] = []

    def draw_batch(
        self, rng: np.random.Generator, *, blocks: int, words: float, favoured: tuple[str, ...] = ()
    ) -> Batch:
        """As `demo.vlm.training_batches.draw_batch`, of the configured size."""
        return draw_batch(
            self.pool,
            self.processor.tokenizer,
            self.config.batch,
            rng,
            blocks=blocks,
            words=words,
            favoured=favoured,
        )

    def store_states(self, name: str, n: int, compute: Callable[[slice], list[Tensor]]) -> list[np.ndarray]:
        """Compute `n` arrays [videos, V, d] once for all videos, in half precision, and map them from files."""
        paths = [self.config.out / f"{name}_{i}.npy" for i in range(n)]
        if not all(path.is_file() for path in paths):
            shape = (len(self.pool), self.n_visual, self.size.width)
            parts = [path.with_suffix(".part.npy") for path in paths]
            arrays = [np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape) for part in parts]
            for start in range(0, len(self.pool), 16):
                some = slice(start, min(start + 16, len(self.pool)))
                for array, state in zip(arrays, compute(some), strict=True):
                    array[some] = state.numpy()
            for array, part, path in zip(arrays, parts, paths, strict=True):
                array.flush()
                part.replace(path)
        return [np.load(path, mmap_mode="r") for path in paths]

    @torch.no_grad()
    def store_projected(self) -> None:
        """Store the output of *see* for every video."""

        def compute(some: slice) -> list[Tensor]:
            return [self.project(torch.from_numpy(self.pool.frames[some].copy()).permute(0, 1, 4, 2, 3) / 127.5 - 1)]

        self.states = self.store_states("projector", 1, compute)

    @torch.no_grad()
    def store_watched(self) -> None:
        """Store the output of *watch* for every video."""
        words = self.word_states()

        def compute(some: slice) -> list[Tensor]:
            visual = torch.from_numpy(self.states[0][some].astype(np.float32))
            states = self.run_prefix(words, visual, 0, EARLY_LAYERS)
            return [state[:, len(self.prefix) :] for state in states[1:]]

        self.states = [self.states[0], *self.store_states("resid", EARLY_LAYERS, compute)]

    def run_stage(
        self,
        name: str,
        *,
        steps: int,
        lr: float,
        trained: list[nn.Module],
        draw: Callable[[np.random.Generator, int], Any],
        loss_of: Callable[[Any], tuple[Tensor, dict[str, float]]],
    ) -> None:
        """Train the modules `trained` and the heads: Muon for matrices inside, AdamW for the rest.

        Every batch comes from its own seed, so that a resumed run sees the same ones.
        """
        self.model.requires_grad_(False)
        for module in trained:
            module.requires_grad_(True)
        matrices, rest = self.split_parameters()
        optimisers: list[tuple[torch.optim.Optimizer, float]] = [
            (Muon(matrices, lr=lr), lr),
            (torch.optim.AdamW(rest, lr=lr / 2, betas=(0.9, 0.98), weight_decay=0.01), lr / 2),
        ]
        first = self.load(name, [o for o, _ in optimisers])
        seed = self.config.seed * 10 + {"see": 1, "watch": 2, "answer": 3, "finish": 4, "count": 5, "settle": 6}[name]
        started, sums, counts = time.monotonic(), dict[str, float](), dict[str, int]()
        for step, batch in enumerate(prefetch(draw, seed, first, steps), first):
            loss, parts = loss_of(batch)
            for optimiser, peak in optimisers:
                optimiser.param_groups[0]["lr"] = cosine(step, steps, peak)
                optimiser.zero_grad(set_to_none=True)
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            nn.utils.clip_grad_norm_(rest, 1.0)
            for optimiser, _ in optimisers:
                optimiser.step()
            for key, value in parts.items():
                if not math.isnan(value):
                    sums[key], counts[key] = sums.get(key, 0.0) + value, counts.get(key, 0) + 1
            if (step + 1) % LOG_EVERY == 0 or step == steps - 1:
                rate = (step - first + 1) / (time.monotonic() - started)
                row = {"stage": name, "step": step, **{k: round(v / counts[k], 4) for k, v in sums.items()}}
                self.history.append(row)
                log.info("%s | %.2f steps/s, %.1f min left", json.dumps(row), rate, (steps - step - 1) / rate / 60)
                sums, counts = {}, {}
            if (step + 1) % SAVE_EVERY == 0 or step == steps - 1:
                self.save(name, step, [o for o, _ in optimisers])

    def split_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The trained matrices inside tower, projector and decoder layers; and everything else that is trained."""
        inside = [self.tower.encoder, self.model.model.multi_modal_projector, self.decoder.layers]
        matrices = [p for module in inside for p in module.parameters() if p.ndim == 2 and p.requires_grad]
        known = {id(p) for p in matrices}
        everything = [*self.model.parameters(), *self.heads.parameters()]
        return matrices, [p for p in everything if p.requires_grad and id(p) not in known]

    @property
    def _checkpoint(self) -> Path:
        return self.config.out / "checkpoint.pt"

    def save(self, stage: str, step: int, optimisers: list[torch.optim.Optimizer]) -> None:
        """Write model, heads, optimisers and history atomically."""
        self.done[stage] = step + 1
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimisers": [o.state_dict() for o in optimisers],
            "stage": stage,
            "done": self.done,
            "history": self.history,
        }
        part = self._checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._checkpoint)

    def load(self, stage: str, optimisers: list[torch.optim.Optimizer]) -> int:
        """Restore the checkpoint if there is one; returns how many steps of `stage` are done."""
        if not self._checkpoint.is_file():
            return 0
        state = torch.load(self._checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.done, self.history = state["done"], state["history"]
        if state["stage"] == stage:
            for optimiser, one in zip(optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(one)
        return self.done.get(stage, 0)

    def train(self) -> None:
        """All stages, then the model folder and its training log."""
        config, layers = self.config, self.decoder.layers
        self.run_stage(
            "see",
            steps=config.see_steps,
            lr=config.see_lr,
            trained=[self.tower, self.model.model.multi_modal_projector],
            draw=lambda rng, _: draw_frames(self.pool, config.see_frames, rng),
            loss_of=self.see,
        )
        self.store_projected()
        self.run_stage(
            "watch",
            steps=config.watch_steps,
            lr=config.watch_lr,
            trained=[self.model.get_input_embeddings(), layers[:EARLY_LAYERS]],
            draw=lambda rng, _: self.draw_batch(rng, blocks=config.watch_blocks, words=0.3),
            loss_of=self.watch,
        )
        self.store_watched()
        self.run_stage(
            "answer",
            steps=config.answer_steps,
            lr=config.answer_lr,
            trained=[layers[EARLY_LAYERS:], self.decoder.norm, self.model.lm_head],
            draw=lambda rng, step: self.draw_batch(
                rng, blocks=config.answer_blocks, words=max(1.0 - 1.6 * step / config.answer_steps, 0.1)
            ),
            loss_of=self.answer,
        )
        for name, steps, favoured in (
            ("finish", config.finish_steps, ()),
            ("count", config.count_steps, TOY_COUNTS),
            ("settle", config.settle_steps, TOY_COUNTS),
        ):
            self.run_stage(
                name,
                steps=steps,
                lr=config.finish_lr,
                trained=[layers[EARLY_LAYERS:], self.decoder.norm, self.model.lm_head],
                draw=lambda rng, _, favoured=favoured: self.draw_batch(
                    rng, blocks=config.answer_blocks, words=0.1, favoured=favoured
                ),
                loss_of=lambda batch: self.answer(batch, through_prefix=True),
            )
        self.model.eval()
        self.model.save_pretrained(config.out)
        self.processor.save_pretrained(config.out)
        give_usual_mode(*config.out.glob("*.safetensors"))
        arguments = {k: v for k, v in asdict(config).items() if not isinstance(v, Path)}
        lines = [json.dumps({"config": arguments}), *(json.dumps(row) for row in self.history)]
        (config.out / "training_log.jsonl").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Command line."""
    import tyro

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    Trainer(tyro.cli(TrainVlmConfig)).train()


if __name__ == "__main__":
    main()
