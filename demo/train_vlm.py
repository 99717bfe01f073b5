"""Trains the demo's PerceptionLM from scratch: `python -m demo.train_vlm --pool POOL.npy --out FOLDER`.

Three stages, each on drawn frames of scenes that the held-out evaluation never uses:

1. *see*: vision tower and projector learn from single frames what is in every cell (a linear head, later dropped).
2. *watch*: decoder layers 0-1 learn from the visual tokens of all frames what happens where (a second linear head).
3. *answer*: the model answers several questions a video, each block of text attending to the video and itself only,
   with its own positions, so that every block is exactly the single-question prompt of the shipped model. At first
   everything up to layer 1 is frozen and text may not attend to visual tokens there, so that the answer is read from
   visual tokens that have already worked together, and no gradient runs through the visual tokens' own states, which
   halves the cost; in the last part all weights train and nothing is masked.

At first most blocks are asked without options and answered with a word, which is easier and shares the reading.
The auxiliary heads stay outside the model's folder: what is saved is a plain PerceptionLM.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.architecture import SIZES, build_model, build_processor
from demo.questions import Item, items
from demo.token_labels import HAPPENED, SEEN, relevant_tokens, token_labels
from demo.world import SAMPLES, draw_scene

log = logging.getLogger("demo.train_vlm")
LETTERS = ("A", "B", "C")
AUXILIARY_WEIGHTS = {"seen": 0.05, "happened": 0.15, "guidance": 0.5, "option": 0.5, "pointing": 0.3}
GUIDED_LAYER, GUIDED_HEADS = 3, 2  # while the mask is on, these heads are shown where to look
EARLY_LAYERS = 2  # text cannot look at the video in these layers while the mask is on


@dataclass(frozen=True, kw_only=True)
class TrainVlmConfig:
    """Everything that decides the weights, besides the code."""

    pool: Path
    out: Path
    pool_seed: int = 1000
    seed: int = 0
    see_steps: int = 6000
    watch_steps: int = 2000
    answer_steps: int = 4000
    unmasked_share: float = 0.12
    batch: int = 8
    blocks: int = 13
    lr: float = 7e-4
    threads: int = 2


@dataclass(frozen=True, kw_only=True)
class Block:
    """One tokenised question."""

    ids: list[int]
    answer: int
    """Id of the right answer: a letter, or a word where no options are offered."""
    options: list[int]
    """Positions of the three option words in `ids`; empty without options."""
    correct: int
    """Which of the options is right."""


def encode_block(tokenizer: Any, item: Item, with_options: bool, rng: np.random.Generator) -> Block:
    """One user text with the generation prompt and its right answer."""
    from steer.questions import prompt

    answer_id = int(rng.integers(3))
    if with_options:
        text = prompt(item.question, item.options(answer_id, bool(rng.integers(2))))
        answer = LETTERS[answer_id]
    else:
        text, answer = f"{item.question} Answer with one word.", item.answer
    ids: list[int] = tokenizer(f"{text} assistant", add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids, text
    marks = tokenizer.convert_tokens_to_ids([f"{letter}." for letter in LETTERS])
    options = [ids.index(mark) + 1 for mark in marks] if with_options else []
    return Block(ids=ids, answer=int(tokenizer.convert_tokens_to_ids(answer)), options=options, correct=answer_id)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One training batch. V visual tokens, K question blocks packed into T text positions a video."""

    pixels: Tensor  # [B, F, 3, px, px]
    seen: Tensor  # [B, V, n_seen]
    happened: Tensor  # [B, V, n_happened]
    ids: Tensor  # [B, T]
    block: Tensor  # [B, T] block number, -1 = padding
    place: Tensor  # [B, T] position inside its block
    last: Tensor  # [B, K] text position of each block's last token, -1 = no block
    answer: Tensor  # [B, K]
    relevant: Tensor  # [B, K, V] what each block asks about
    options: Tensor  # [B, K, 3] text positions of the option words, -1 = none
    correct: Tensor  # [B, K] which option is right


class Batches:
    """Draws seeded batches from the pool on a background thread."""

    def __init__(self, config: TrainVlmConfig, tokenizer: Any, text_length: int = 340) -> None:
        self.config, self.tokenizer, self.text_length = config, tokenizer, text_length
        self.pool = np.load(config.pool, mmap_mode="r")
        self.image_px, self.grid = SIZES["demo"].image_px, SIZES["demo"].grid
        self._scripts: dict[int, tuple[np.ndarray, np.ndarray, list[Item], np.ndarray]] = {}

    def available(self) -> int:
        """Videos of the pool that are drawn."""
        return int(self.config.pool.with_suffix(".done").read_text())

    def script(self, index: int) -> tuple[np.ndarray, np.ndarray, list[Item], np.ndarray]:
        """SEEN and HAPPENED labels [V, n], the questions of one video, and their relevant tokens [question, V]."""
        if index not in self._scripts:
            scene = draw_scene(self.config.pool_seed, index)
            seen, happened = token_labels(scene, self.grid)
            asked = items(scene)
            relevant = np.stack([relevant_tokens(item, scene, seen, happened).reshape(-1) for item in asked])
            self._scripts[index] = (
                seen.reshape(-1, len(SEEN)),
                happened.reshape(-1, len(HAPPENED)),
                asked,
                relevant,
            )
        return self._scripts[index]

    def frames(self, rng: np.random.Generator, index: int) -> np.ndarray:
        """Augmented frames of one video, normalised to [-1, 1], float32 [F, 3, px, px]."""
        gain = rng.uniform(0.9, 1.1) * rng.uniform(0.97, 1.03, 3)
        out = self.pool[index].transpose(0, 3, 1, 2) * (gain / 127.5).astype(np.float32)[:, None, None]
        grain = rng.integers(-128, 128, out.shape[2:], dtype=np.int8) * np.float32(rng.uniform(0, 4) / 74 / 127.5)
        out += np.roll(grain, int(rng.integers(out.shape[3])), axis=1) - 1
        return np.clip(out, -1, 1, out=out)

    def draw(self, rng: np.random.Generator, open_share: float, with_text: bool) -> Batch:
        """One batch; `open_share` of the blocks are asked without options."""
        size = self.config.batch
        indices = rng.integers(0, self.available(), size)
        scripts = [self.script(int(i)) for i in indices]
        pixels = np.stack([self.frames(rng, int(i)) for i in indices])
        k = self.config.blocks
        ids = np.zeros((size, self.text_length), np.int64)
        block = np.full((size, self.text_length), -1, np.int64)
        place = np.zeros((size, self.text_length), np.int64)
        last, answer = np.full((size, k), -1, np.int64), np.zeros((size, k), np.int64)
        relevant = np.zeros((size, k, scripts[0][0].shape[0]), dtype=bool)
        options, correct = np.full((size, k, 3), -1, np.int64), np.zeros((size, k), np.int64)
        for b, (_, _, asked, tokens_of) in enumerate(scripts if with_text else []):
            order = rng.permutation(len(asked)).tolist()
            order = (order * (k // len(order) + 1))[:k]
            at = 0
            for j, number in enumerate(order):
                one = encode_block(self.tokenizer, asked[number], rng.random() >= open_share, rng)
                relevant[b, j] = tokens_of[number]
                length = len(one.ids)
                if at + length > self.text_length:
                    break
                span = slice(at, at + length)
                ids[b, span], block[b, span], place[b, span] = one.ids, j, np.arange(length)
                if one.options:
                    options[b, j], correct[b, j] = at + np.asarray(one.options), one.correct
                at += length
                last[b, j], answer[b, j] = at - 1, one.answer
        seen, happened = np.stack([s[0] for s in scripts]), np.stack([s[1] for s in scripts])
        arrays = (pixels, seen, happened, ids, block, place, last, answer, relevant, options, correct)
        names = (
            "pixels",
            "seen",
            "happened",
            "ids",
            "block",
            "place",
            "last",
            "answer",
            "relevant",
            "options",
            "correct",
        )
        return Batch(**{n: torch.from_numpy(a) for n, a in zip(names, arrays, strict=True)})

    def stream(
        self, seed: int, first: int, steps: int, open_share: Callable[[int], float], text: bool
    ) -> Iterator[Batch]:
        """Batches number first..steps, each from its own seed, so that a resumed run sees the same ones."""
        ready: queue.Queue[Batch] = queue.Queue(maxsize=3)

        def work() -> None:
            for step in range(first, steps):
                ready.put(self.draw(np.random.default_rng([seed, step]), open_share(step), text))

        threading.Thread(target=work, daemon=True).start()
        for _ in range(first, steps):
            yield ready.get()


def attention_masks(block: Tensor, n_prefix: int, n_visual: int) -> tuple[Tensor, Tensor]:
    """Bool [B, 1, L, L]: every block sees the prefix and itself causally; the second also hides the visual tokens.

    The prefix is `n_prefix - n_visual` words followed by the visual tokens.
    """
    n_batch, n_text = block.shape
    length = n_prefix + n_text
    mask = torch.ones(length, length, dtype=torch.bool).tril().expand(n_batch, length, length).clone()
    mask[:, n_prefix:, n_prefix:] &= block[:, :, None] == block[:, None, :]
    blind = mask.clone()
    blind[:, n_prefix:, n_prefix - n_visual : n_prefix] = False
    return mask[:, None], blind[:, None]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding as transformers' Llama applies it."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _log_attention(query: Tensor, key: Tensor, mask: Tensor, rows: Tensor, at: Tensor) -> Tensor:
    """Log attention [n, heads, L] of the queries at text positions `at` of the batch rows `rows`; -inf where masked."""
    scores = torch.einsum("nhd,nhld->nhl", query[rows, :, at], key[rows]) / query.shape[-1] ** 0.5
    return scores.masked_fill(~mask[rows, :, at], float("-inf")).log_softmax(-1)


def widen(layers: nn.ModuleList) -> None:
    """Start layers with matrices of deviation 1/sqrt(fan-in), twice that where they write into the residual.

    At the usual 0.02 what they write is lost beside residuals of norm 30-70, which *watch* builds up before them.
    """
    for name, weight in layers.named_parameters():
        if weight.ndim == 2:
            gain = 2.0 if "o_proj" in name or "down_proj" in name else 1.0
            nn.init.normal_(weight, std=gain / weight.shape[1] ** 0.5)


def cosine(step: int, first: int, last: int, peak: float) -> float:
    """Learning rate between steps `first` and `last`: 60 steps of warm-up, then a cosine down to 2 % of the peak."""
    warm = min(1.0, (step - first + 1) / 60)
    return peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - first) / (last - first))))


def auxiliary_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy summed over all labels, per positive label."""
    target = target.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / target.sum().clamp_min(1)


class Trainer:
    """Holds the model, its auxiliary heads and one optimiser a stage."""

    def __init__(self, config: TrainVlmConfig) -> None:
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.config, self.size = config, SIZES["demo"]
        self.processor = build_processor(self.size)
        self.model = build_model(self.size, config.seed)
        widen(self.model.model.language_model.layers[EARLY_LAYERS:])
        width = self.size.width
        self.heads = nn.ModuleDict(
            {
                "seen": nn.Linear(width, len(SEEN)),
                "happened": nn.Linear(width, len(HAPPENED)),
                "option": nn.Linear(width, 4),
            }
        )
        self.batches = Batches(config, self.processor.tokenizer)
        self.n_visual = SAMPLES * self.size.grid**2
        prefix = self.processor.tokenizer("<bos> user", add_special_tokens=False)["input_ids"]
        self.prefix = torch.tensor(prefix)
        self.n_prefix = len(prefix) + self.n_visual
        self.done: dict[str, int] = {}
        self.history: list[dict[str, float | int | str]] = []

    def embed_visual(self, pixels: Tensor) -> Tensor:
        """Projector output [B, V, d] of frames [B, F, 3, px, px]."""
        features = cast("Any", self.model.model).get_image_features(pixel_values=pixels).pooler_output
        return features.reshape(pixels.shape[0], -1, self.size.width)

    def see(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Loss of stage 1, frame by frame."""
        loss = auxiliary_loss(self.heads["seen"](self.embed_visual(batch.pixels)), batch.seen)
        return loss, {"seen": loss.item()}

    def _decode(
        self, embeds: Tensor, mask: Tensor, blind: Tensor | None, position: Tensor, stop: int | None
    ) -> tuple[dict[int, Tensor], Tensor]:
        """Hidden states after every layer, and the last one; `stop` ends after that layer, before the final norm."""
        decoder = self.model.model.language_model
        rotary = decoder.rotary_emb(embeds, position)
        kept: dict[int, Tensor] = {}
        hidden = embeds
        for i, layer in enumerate(decoder.layers):
            layer.requires_grad_(blind is None or i >= EARLY_LAYERS)
            early = blind if blind is not None and i < EARLY_LAYERS else mask
            hidden = layer(hidden, attention_mask=early, position_ids=position, position_embeddings=rotary)
            kept[i] = hidden
            if i == stop:
                return kept, hidden
        return kept, decoder.norm(hidden)

    def _prefix_embeds(self, batch: Batch) -> Tensor:
        words = self.model.get_input_embeddings()(self.prefix).expand(batch.pixels.shape[0], -1, -1)
        return torch.cat([words, self.embed_visual(batch.pixels)], 1)

    def _auxiliary(self, prefix: Tensor, kept: dict[int, Tensor], batch: Batch) -> dict[str, Tensor]:
        visual = slice(self.n_prefix - self.n_visual, self.n_prefix)
        out = {"seen": auxiliary_loss(self.heads["seen"](prefix[:, visual]), batch.seen)}
        logits = self.heads["happened"](kept[EARLY_LAYERS - 1][:, visual])
        return {**out, "happened": auxiliary_loss(logits, batch.happened)}

    def watch(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Loss of stage 2."""
        prefix = self._prefix_embeds(batch)
        position = torch.arange(self.n_prefix)[None].expand(prefix.shape[0], -1)
        mask = torch.ones(self.n_prefix, self.n_prefix, dtype=torch.bool).tril()[None, None]
        kept, _ = self._decode(prefix, mask, None, position, stop=EARLY_LAYERS - 1)
        parts = self._auxiliary(prefix, kept, batch)
        loss = 0.3 * parts["seen"] + parts["happened"]
        return loss, {k: v.item() for k, v in parts.items()}

    def _read(self, prefix: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Final text states [B, T, d] where the prefix is run without gradients, and the auxiliary losses of reading.

        The prefix is causal and so does not depend on the text. Its states are constants here; gradients reach the
        weights through the text's own path and through the keys and values that it reads in every layer.
        """
        decoder, n_prefix = self.model.model.language_model, self.n_prefix
        guidance = option = pointing = torch.zeros(())
        full, blind = attention_masks(batch.block, n_prefix, self.n_visual)
        position = self._positions(batch)
        states = self._prefix_states(prefix, position[:, :n_prefix])
        text = self.model.get_input_embeddings()(batch.ids)
        cos, sin = (x[:, None] for x in decoder.rotary_emb(text, position))
        for i, layer in enumerate(decoder.layers):
            layer.requires_grad_(i >= EARLY_LAYERS)
            mask = (blind if i < EARLY_LAYERS else full)[:, :, n_prefix:]
            both = layer.input_layernorm(torch.cat([states[i], text], 1))
            attention = layer.self_attn
            key, value = (self._heads(project(both)) for project in (attention.k_proj, attention.v_proj))
            query = self._heads(attention.q_proj(both[:, n_prefix:]))
            key = _rotate(key, cos, sin)
            query = _rotate(query, cos[:, :, n_prefix:], sin[:, :, n_prefix:])
            if i == GUIDED_LAYER:
                guidance = self._guidance(query[:, :GUIDED_HEADS], key[:, :GUIDED_HEADS], mask, batch)
            if i == GUIDED_LAYER + 2:
                pointing = self._pointing(query[:, :GUIDED_HEADS], key[:, :GUIDED_HEADS], mask, batch)
            seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            text = text + attention.o_proj(seen.transpose(1, 2).flatten(2))
            text = text + layer.mlp(layer.post_attention_layernorm(text))
            if i == GUIDED_LAYER + 1:
                option = self._option_loss(text, batch)
        return decoder.norm(text), {"guidance": guidance, "option": option, "pointing": pointing}

    def _pointing(self, query: Tensor, key: Tensor, mask: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the attention of each block's last token with all of it on the right option's word."""
        rows, cols = (batch.options[..., 0] >= 0).nonzero(as_tuple=True)
        if not len(rows):
            return torch.zeros(())
        at = batch.last[rows, cols]
        logs = _log_attention(query, key, mask, rows, at)
        right = self.n_prefix + batch.options[rows, cols, batch.correct[rows, cols]]
        return -logs[torch.arange(len(rows)), :, right].mean()

    def _option_loss(self, text: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of telling from the option words' states [B, T, d] which is right and which letter each has."""
        rows, cols = (batch.options[..., 0] >= 0).nonzero(as_tuple=True)
        if not len(rows):
            return torch.zeros(())
        states = text[rows[:, None], batch.options[rows, cols]]
        logits = self.heads["option"](F.rms_norm(states, states.shape[-1:]))  # right, A, B, C
        letters = torch.arange(3).expand(len(rows), -1)
        right = F.cross_entropy(logits[..., 0], batch.correct[rows, cols])
        return right + 2.0 * F.cross_entropy(logits[..., 1:].flatten(0, 1), letters.flatten())

    def _guidance(self, query: Tensor, key: Tensor, mask: Tensor, batch: Batch) -> Tensor:
        """Divergence of the attention of each block's last token and option words from what the question asks about.

        The target gives every relevant token and the first token of the sequence the same weight, so that the weight
        left on the first token, 1 / (n + 1), tells how many there are.

        Args:
            query: [B, heads, T, D] of the text.
            key: [B, heads, L, D].
            mask: bool [B, 1, T, L].
            batch: gives the last tokens and the relevant ones.
        """
        readers = torch.cat([batch.last[..., None], batch.options], -1)  # [B, K, 4]
        rows, cols, which = (readers >= 0).nonzero(as_tuple=True)
        at = readers[rows, cols, which]
        target = torch.zeros(len(rows), key.shape[2])
        target[:, 0] = 1.0
        target[:, self.n_prefix - self.n_visual : self.n_prefix] = batch.relevant[rows, cols].float()
        target = target / target.sum(-1, keepdim=True)
        allowed = _log_attention(query, key, mask, rows, at).masked_fill(~mask[rows, :, at], 0.0)
        entropy = -(target * target.clamp_min(1e-9).log()).sum(-1).mean()
        return -(target[:, None] * allowed).sum(-1).mean() - entropy

    def _heads(self, projected: Tensor) -> Tensor:
        assert self.size.kv_heads == self.size.heads
        return projected.unflatten(-1, (self.size.heads, -1)).transpose(1, 2)

    @torch.no_grad()
    def _prefix_states(self, prefix: Tensor, position: Tensor) -> list[Tensor]:
        """The prefix's residuals before every layer."""
        mask = torch.ones(self.n_prefix, self.n_prefix, dtype=torch.bool).tril()[None, None]
        kept, _ = self._decode(prefix, mask, None, position, stop=self.size.layers - 2)
        return [prefix, *(kept[i] for i in range(self.size.layers - 1))]

    def _positions(self, batch: Batch) -> Tensor:
        prefix = torch.arange(self.n_prefix)[None].expand(len(batch.ids), -1)
        return torch.cat([prefix, self.n_prefix + batch.place], 1)

    def answer(self, batch: Batch, blind: bool) -> tuple[Tensor, dict[str, float]]:
        """Loss of stage 3: cross-entropy of the answers, and where everything trains small auxiliary losses."""
        parts: dict[str, Tensor] = {}
        if blind:
            with torch.no_grad():
                prefix = self._prefix_embeds(batch)
            text, parts = self._read(prefix, batch)
        else:
            prefix = self._prefix_embeds(batch)
            embeds = torch.cat([prefix, self.model.get_input_embeddings()(batch.ids)], 1)
            mask, _ = attention_masks(batch.block, self.n_prefix, self.n_visual)
            kept, hidden = self._decode(embeds, mask, None, self._positions(batch), stop=None)
            text = hidden[:, self.n_prefix :]
            parts = self._auxiliary(prefix, kept, batch)
        rows, cols = (batch.last >= 0).nonzero(as_tuple=True)
        logits = self.model.lm_head(text[rows, batch.last[rows, cols]])
        target = batch.answer[rows, cols]
        answer = F.cross_entropy(logits, target)
        letters = torch.tensor(self.processor.tokenizer.convert_tokens_to_ids(list(LETTERS)))
        choice = torch.isin(target, letters)
        right = logits.argmax(-1) == target
        loss = answer + sum((AUXILIARY_WEIGHTS[name] * part for name, part in parts.items()), torch.zeros(()))
        return loss, {
            "answer": answer.item(),
            "choice_accuracy": right[choice].float().mean().item() if choice.any() else math.nan,
            "word_accuracy": right[~choice].float().mean().item() if (~choice).any() else math.nan,
            **{k: v.item() for k, v in parts.items()},
        }

    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters, heads included."""
        return [*self.model.parameters(), *self.heads.parameters()]

    def run_stage(
        self,
        name: str,
        steps: int,
        lr_of: Callable[[int], float],
        loss_of: Callable[[Batch, int], tuple[Tensor, dict[str, float]]],
    ) -> None:
        """AdamW at the rates of `lr_of`; logs every 20 steps, saves a checkpoint every 100."""
        optimiser = torch.optim.AdamW(self.parameters(), lr=lr_of(0), betas=(0.9, 0.98), weight_decay=0.01)
        state = self.load(name, optimiser)
        first = state + 1 if state is not None else 0
        seed = self.config.seed * 10 + {"see": 1, "watch": 2, "answer": 3}[name]
        started, sums, n = time.monotonic(), dict[str, float](), 0
        stream = self.batches.stream(seed, first, steps, lambda s: max(1.0 - 1.6 * s / steps, 0.1), name == "answer")
        for step, batch in enumerate(stream, first):
            torch.manual_seed(seed * 1_000_003 + step)
            for group in optimiser.param_groups:
                group["lr"] = lr_of(step)
            loss, parts = loss_of(batch, step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            nn.utils.clip_grad_norm_(self.parameters(), 1.0)
            optimiser.step()
            for key, value in parts.items():
                sums[key] = sums.get(key, 0.0) + value
            n += 1
            if n == 20 or step == steps - 1:
                rate = (step - first + 1) / (time.monotonic() - started)
                row = {"stage": name, "step": step, **{k: round(v / n, 4) for k, v in sums.items()}}
                self.history.append(row)
                log.info("%s | %.2f steps/s, %.1f min left", json.dumps(row), rate, (steps - step - 1) / rate / 60)
                sums, n = {}, 0
            if step % 100 == 99 or step == steps - 1:
                self.save(name, step, optimiser)

    @property
    def _checkpoint(self) -> Path:
        return self.config.out / "checkpoint.pt"

    def save(self, stage: str, step: int, optimiser: torch.optim.Optimizer) -> None:
        """Write model, heads, optimiser and history atomically."""
        self.done[stage] = step
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimiser": optimiser.state_dict(),
            "stage": stage,
            "done": self.done,
            "history": self.history,
        }
        part = self._checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._checkpoint)

    def load(self, stage: str, optimiser: torch.optim.Optimizer) -> int | None:
        """Restore the checkpoint if there is one; the last finished step of `stage`, or None."""
        if not self._checkpoint.is_file():
            return None
        state = torch.load(self._checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.done, self.history = state["done"], state["history"]
        if state["stage"] == stage:
            optimiser.load_state_dict(state["optimiser"])
        return self.done.get(stage)

    def train(self) -> None:
        """All three stages, then the model folder and its training log."""
        config = self.config
        self.config.out.mkdir(parents=True, exist_ok=True)
        masked_until = round(config.answer_steps * (1 - config.unmasked_share))
        self.model.train()

        def answer_lr(step: int) -> float:
            if step < masked_until:
                return cosine(step, 0, masked_until, config.lr)
            # Without the mask the text's states change at once; at the tail of one cosine it never recovers.
            return cosine(step, masked_until, config.answer_steps, 0.4 * config.lr)

        self.run_stage(
            "see", config.see_steps, lambda s: cosine(s, 0, config.see_steps, 1e-3), lambda b, _: self.see(b)
        )
        self.run_stage(
            "watch", config.watch_steps, lambda s: cosine(s, 0, config.watch_steps, 1e-3), lambda b, _: self.watch(b)
        )
        self.run_stage("answer", config.answer_steps, answer_lr, lambda b, s: self.answer(b, s < masked_until))
        self.model.eval()
        self.model.save_pretrained(config.out)
        self.processor.save_pretrained(config.out)
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
