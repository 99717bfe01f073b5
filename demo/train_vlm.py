"""Trains the demo's PerceptionLM from scratch: `python -m demo.train_vlm --out FOLDER`.

Three stages on drawn frames of scenes that the held-out evaluation never uses, each one frozen for the next, so that
its outputs are computed once for all videos:

1. *see*: vision tower and projector learn from single frames what is in every cell.
2. *watch*: decoder layers 0-1 learn from the visual tokens of all frames what happens where, and at the text's
   positions what a question is about. Nothing asks the text to look at the video so far.
3. *answer*: layers 2-5 learn to answer several questions a video. Each block of text attends to the video and itself
   only, with its own positions, so that every block is exactly the single-question prompt of the shipped model. The
   answer is thus read from visual tokens that have already worked together.

The prefix is causal and does not depend on the text, so in the last stage it is run without gradients: they reach the
weights through the text's own path and through the keys and values that it reads, at half the cost. At first most
questions are asked without options and answered with a word, which is easier and shares the reading. Linear heads
and attention targets guide every stage; they stay outside the model's folder, which is a plain PerceptionLM.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.architecture import SIZES, build_model, build_processor
from demo.muon import Muon
from demo.token_labels import ASKED, HAPPENED, SEEN
from demo.training_data import Pool, Texts, build_pool, pack_texts
from demo.world import SAMPLES
from steer.questions import LETTERS

log = logging.getLogger("demo.train_vlm")
LOG_EVERY, SAVE_EVERY = 20, 100  # steps
EARLY_LAYERS = 2  # trained by *watch*
GUIDED_LAYER, GUIDED_HEADS = 3, 2  # these heads are shown where to look for the answer
ANSWER_WEIGHTS = {"guidance": 0.5, "option": 0.5, "pointing": 0.3}
WATCH_WEIGHTS = {"happened": 1.0, "seen": 0.1, "frame": 0.1, "tracking": 0.1, "asked": 0.2, "word": 0.2, "letter": 0.1}


@dataclass(frozen=True, kw_only=True)
class TrainVlmConfig:
    """Everything that decides the weights, besides the code."""

    out: Path
    """Folder for the model, its checkpoints and, in `pool/`, the drawn scenes."""
    videos: int = 12_032
    """Scenes to draw and learn from, 3.6 GB; what *see* and *watch* make of them takes 4.7 GB more."""
    pool_seed: int = 1000
    seed: int = 0
    see_steps: int = 1500
    see_frames: int = 64
    watch_steps: int = 1500
    answer_steps: int = 3000
    batch: int = 8
    """Videos a step of *watch* and *answer*."""
    watch_blocks: int = 6
    answer_blocks: int = 13
    see_lr: float = 2e-2
    watch_lr: float = 1e-2
    answer_lr: float = 1e-2
    """Peak rates of Muon; AdamW runs at half of them."""
    threads: int = 2


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


def attention_mask(block: Tensor, n_prefix: int) -> Tensor:
    """Bool [B, 1, L, L]: every block of text sees the prefix, and itself causally."""
    n_batch, n_text = block.shape
    length = n_prefix + n_text
    mask = torch.ones(length, length, dtype=torch.bool).tril().expand(n_batch, length, length).clone()
    mask[:, n_prefix:, n_prefix:] &= block[:, :, None] == block[:, None, :]
    return mask[:, None]


def cosine(step: int, steps: int, peak: float) -> float:
    """Learning rate: 50 steps of warm-up, then a cosine down to 2 % of the peak."""
    return peak * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def label_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy summed over all labels, per positive label."""
    target = target.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / target.sum().clamp_min(1)


def fan_in(module: nn.Module, write_gain: float = 1.0) -> None:
    """Start matrices at deviation 1/sqrt(fan-in), `write_gain` times that where they write into the residual stream.

    At the usual 0.02 what they write is lost beside residuals that grow to a norm of 30-70.
    """
    for name, weight in module.named_parameters():
        if weight.ndim == 2:
            gain = write_gain if "o_proj" in name or "down_proj" in name else 1.0
            nn.init.normal_(weight, std=gain / weight.shape[1] ** 0.5)


def whitening_patches(pixels: Tensor, patch_px: int, width: int) -> tuple[Tensor, Tensor]:
    """Weight [width, 3, P, P] and bias [width] of a patch embedding with uncorrelated outputs of variance 1.

    Args:
        pixels: normalised frames [N, 3, px, px].
        patch_px: P.
        width: number of leading principal components to keep.
    """
    patches = F.unfold(pixels, patch_px, stride=patch_px).transpose(1, 2).flatten(0, 1)
    variances, directions = torch.linalg.eigh(torch.cov(patches.T))
    weight = (directions[:, -width:] / variances[-width:].clamp_min(1e-6).sqrt()).T
    return weight.unflatten(1, (3, patch_px, patch_px)), -(weight @ patches.mean(0))


def grid_waves(grid: int, width: int) -> Tensor:
    """Sines and cosines of row and column, [grid², width]."""
    angles = torch.arange(grid)[:, None] * 30.0 ** -(torch.arange(width // 4) / (width // 4))
    line = torch.cat([angles.sin(), angles.cos()], 1)
    return torch.cat([line[:, None].expand(-1, grid, -1), line[None].expand(grid, -1, -1)], -1).flatten(0, 1)


def tracking_targets(grid: int, n_words: int) -> Tensor:
    """Where two heads of the early layers look, [2, V, L]: around the same cell in all earlier frames, in the last one.

    The first token of the sequence always has a share, so that the weight left on it tells whether there is a frame.
    """
    token = torch.arange(SAMPLES * grid**2)
    frame, row, column = token // grid**2, token // grid % grid, token % grid
    near = ((row[:, None] - row).abs() <= 1) & ((column[:, None] - column).abs() <= 1)
    back = frame[:, None] - frame
    target = torch.zeros(2, len(token), n_words + len(token))
    target[..., 0] = 1.0
    target[..., n_words:] = torch.stack([near & (back > 0), near & (back == 1)])
    return target / target.sum(-1, keepdim=True)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding as transformers' Llama applies it."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _log_attention(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """Log attention [..., heads, L] of queries [..., heads, D] to keys [..., heads, L, D]; -inf where masked."""
    scores = torch.einsum("...hd,...hld->...hl", query, key) / query.shape[-1] ** 0.5
    return scores.masked_fill(~mask, float("-inf")).log_softmax(-1)


def _divergence(target: Tensor, logs: Tensor, mask: Tensor) -> Tensor:
    """Mean KL divergence of attention from `target`, which is zero wherever the mask is."""
    entropy = -(target * target.clamp_min(1e-9).log()).sum(-1)
    return -(target * logs.masked_fill(~mask, 0.0)).sum(-1).mean() - entropy.mean()


class Trainer:
    """Holds the model, its auxiliary heads and the outputs of the finished stages."""

    def __init__(self, config: TrainVlmConfig) -> None:
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.config, self.size = config, SIZES["demo"]
        config.out.mkdir(parents=True, exist_ok=True)
        folder = config.out / "pool"
        if not (folder / "frames.npy").is_file():
            build_pool(
                folder,
                seed=config.pool_seed,
                n_videos=config.videos,
                image_px=self.size.image_px,
                grid=self.size.grid,
                workers=config.threads,
            )
        self.pool = Pool(folder, config.pool_seed)
        self.processor = build_processor(self.size)
        self.model = build_model(self.size, config.seed).train()
        self.tower = cast("Any", self.model.model.vision_tower)
        self.decoder = self.model.model.language_model
        self.start_weights()
        width, words = self.size.width, self.model.config.get_text_config().vocab_size
        outputs = {
            "seen": len(SEEN) + 2 * self.size.grid,  # and the row and column of every cell
            "happened": len(HAPPENED) + SAMPLES,  # and the frame
            "still_seen": len(SEEN) + 2 * self.size.grid,
            "asked": len(ASKED),
            "word": words,
            "letter": len(LETTERS),
            "option": 1 + len(LETTERS),  # right, and which letter it has
        }
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in outputs.items()})
        for name, head in self.heads.items():
            nn.init.zeros_(cast("nn.Linear", head).weight)
            if name in ("seen", "happened", "still_seen"):
                nn.init.constant_(cast("nn.Linear", head).bias, -4.0)  # few of the labels are positive
        self.n_visual = SAMPLES * self.size.grid**2
        self.prefix = torch.tensor(self.processor.tokenizer("<bos> user", add_special_tokens=False)["input_ids"])
        self.n_prefix = len(self.prefix) + self.n_visual
        token = torch.arange(self.n_visual)
        cell = F.one_hot(torch.stack([token // self.size.grid, token]) % self.size.grid)  # [row or column, V, grid]
        self.where = cell.transpose(0, 1).flatten(1)
        self.frame = F.one_hot(token // self.size.grid**2)
        self.tracking = tracking_targets(self.size.grid, len(self.prefix))
        self.done: dict[str, int] = {}
        self.history: list[dict[str, float | int | str]] = []
        self.states: list[np.ndarray] = []

    def start_weights(self) -> None:
        """Initial weights that let a small network learn quickly; each measured in docs/log.md."""
        frames = self.pool.frames[: min(1500, len(self.pool)), 0]
        weight, bias = whitening_patches(
            torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1, self.size.patch_px, self.size.vision_width
        )
        with torch.no_grad():
            self.tower.embeddings.patch_embedding.weight.copy_(weight)
            self.tower.embeddings.patch_embedding.bias.copy_(bias)
            self.tower.embeddings.position_embedding.weight.copy_(grid_waves(self.size.grid, self.size.vision_width))
            fan_in(self.model.model.multi_modal_projector)
            fan_in(self.tower.encoder)
            fan_in(self.decoder.layers[:EARLY_LAYERS])
            fan_in(self.decoder.layers[EARLY_LAYERS:], write_gain=2.0)
            for layer in [*self.tower.encoder.layers, *self.decoder.layers[:EARLY_LAYERS]]:
                # Queries that equal keys look at similar tokens and places from the start (Trockman & Kolter, 2023).
                layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)

    # Batches

    def draw_frames(self, rng: np.random.Generator) -> Frames:
        """Single frames of random videos in random light."""
        n = self.config.see_frames
        videos, which = np.sort(rng.integers(0, len(self.pool), n)), rng.integers(0, SAMPLES, n)
        seen = self.pool.labels(videos)[0].reshape(n, SAMPLES, self.size.grid**2, -1)[np.arange(n), which]
        gain = rng.uniform(0.9, 1.1, (n, 1)) * rng.uniform(0.97, 1.03, (n, 3)) / 127.5
        return Frames(
            pixels=torch.from_numpy(self.pool.frames[videos, which]),
            gain=torch.from_numpy(gain.astype(np.float32)),
            seen=torch.from_numpy(seen),
        )

    def draw_batch(self, rng: np.random.Generator, *, blocks: int, words: float) -> Batch:
        """Random videos with `blocks` questions each, of which the share `words` comes without options."""
        videos = np.sort(rng.integers(0, len(self.pool), self.config.batch))
        seen, happened = self.pool.labels(videos)
        texts = pack_texts(
            self.pool, videos, self.processor.tokenizer, rng, blocks=blocks, length=27 * blocks, words=words
        )
        arrays = {"videos": videos, "seen": seen, "happened": happened}
        arrays |= {field.name: getattr(texts, field.name) for field in fields(Texts)}
        return Batch(**{name: torch.from_numpy(array) for name, array in arrays.items()})

    # Stage 1

    def see(self, batch: Frames) -> tuple[Tensor, dict[str, float]]:
        """Loss of *see*."""
        pixels = batch.pixels.permute(0, 3, 1, 2) * batch.gain[:, :, None, None] - 1
        logits = self.heads["seen"](self.project(pixels[None])[0].unflatten(0, (len(pixels), -1)))
        seen = label_loss(logits[..., : len(SEEN)], batch.seen)
        where = self.where[: self.size.grid**2].expand(len(pixels), -1, -1)
        place = label_loss(logits[..., len(SEEN) :], where)
        return seen + 0.1 * place, {"seen": seen.item(), "place": place.item()}

    def project(self, pixels: Tensor) -> Tensor:
        """Projector output [B, F · grid², d] of frames [B, F, 3, px, px]."""
        features = cast("Any", self.model.model).get_image_features(pixel_values=pixels).pooler_output
        return features.reshape(len(pixels), -1, self.size.width)

    # Stage 2

    def watch(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Loss of *watch*."""
        words = self.model.get_input_embeddings()(torch.cat([self.prefix.expand(len(batch.ids), -1), batch.ids], 1))
        visual = self.state(0, batch.videos)
        n_words = len(self.prefix)
        hidden = torch.cat([words[:, :n_words], visual, words[:, n_words:]], 1)
        mask, position = attention_mask(batch.block, self.n_prefix), self.positions(batch)
        rotary = self.decoder.rotary_emb(hidden, position)
        tracking = torch.zeros(())
        for layer in self.decoder.layers[:EARLY_LAYERS]:
            tracking = tracking + self.tracking_loss(layer, hidden[:, : self.n_prefix], rotary)
            hidden = layer(hidden, attention_mask=mask, position_ids=position, position_embeddings=rotary)
        parts = self.visual_losses(hidden[:, n_words : self.n_prefix], batch)
        parts |= {"tracking": tracking, **self.text_losses(hidden[:, self.n_prefix :], batch)}
        loss = sum((WATCH_WEIGHTS[name] * part for name, part in parts.items()), torch.zeros(()))
        return loss, {name: part.item() for name, part in parts.items()}

    def tracking_loss(self, layer: Any, prefix: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """How far the first two heads are from looking at the same place in earlier frames."""
        n_words, (cos, sin) = len(self.prefix), (r[:, None, : self.n_prefix] for r in rotary)
        normed, attention = layer.input_layernorm(prefix), layer.self_attn
        query, key = (
            _rotate(self.heads_of(project(normed))[:, :2], cos, sin) for project in (attention.q_proj, attention.k_proj)
        )
        mask = torch.ones(self.n_prefix, self.n_prefix, dtype=torch.bool).tril()[n_words:]
        scores = (query[:, :, n_words:] @ key.transpose(-1, -2)) / key.shape[-1] ** 0.5
        return _divergence(self.tracking, scores.masked_fill(~mask, float("-inf")).log_softmax(-1), mask)

    def visual_losses(self, visual: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What the visual tokens [B, V, d] after the early layers have to know."""
        happened = self.heads["happened"](visual)
        still = self.heads["still_seen"](visual)
        where = self.where.expand(len(visual), -1, -1)
        return {
            "happened": label_loss(happened[..., : len(HAPPENED)], batch.happened),
            "frame": label_loss(happened[..., len(HAPPENED) :], self.frame.expand(len(visual), -1, -1)),
            "seen": label_loss(still, torch.cat([batch.seen, where], -1)),
        }

    def text_losses(self, text: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What the text's states [B, T, d] after the early layers have to know: words, options, what is asked."""
        text = F.rms_norm(text, text.shape[-1:])
        real = batch.block >= 0
        rows, blocks, at = batch.readers()
        parts = {
            "word": F.cross_entropy(self.heads["word"](text[real]), batch.ids[real]),
            "asked": F.cross_entropy(self.heads["asked"](text[rows, at]), batch.asked[rows, blocks]),
        }
        rows, blocks = batch.with_options()
        if len(rows):
            logits = self.heads["letter"](text[rows[:, None], batch.options[rows, blocks]])
            parts["letter"] = F.cross_entropy(logits.flatten(0, 1), torch.arange(len(LETTERS)).repeat(len(rows)))
        return parts

    # Stage 3

    def read(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Final text states [B, T, d], with the prefix run without gradients, and the guiding losses."""
        mask = attention_mask(batch.block, self.n_prefix)[:, :, self.n_prefix :]
        position = self.positions(batch)
        prefixes = self.prefix_states(batch.videos)
        text = self.model.get_input_embeddings()(batch.ids)
        cos, sin = (x[:, None] for x in self.decoder.rotary_emb(text, position))
        parts: dict[str, Tensor] = {}
        for i, layer in enumerate(self.decoder.layers):
            both = layer.input_layernorm(torch.cat([prefixes[i], text], 1))
            attention = cast("Any", layer.self_attn)
            key, value = (self.heads_of(project(both)) for project in (attention.k_proj, attention.v_proj))
            query = self.heads_of(attention.q_proj(both[:, self.n_prefix :]))
            key = _rotate(key, cos, sin)
            query = _rotate(query, cos[:, :, self.n_prefix :], sin[:, :, self.n_prefix :])
            if i == GUIDED_LAYER:
                parts["guidance"] = self.guidance(query[:, :GUIDED_HEADS], key[:, :GUIDED_HEADS], mask, batch)
            if i == GUIDED_LAYER + 2:
                parts["pointing"] = self.pointing(query[:, :GUIDED_HEADS], key[:, :GUIDED_HEADS], mask, batch)
            read = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            text = text + attention.o_proj(read.transpose(1, 2).flatten(2))
            text = text + layer.mlp(layer.post_attention_layernorm(text))
            if i == GUIDED_LAYER + 1:
                parts["option"] = self.option_loss(text, batch)
        return self.decoder.norm(text), parts

    def pointing(self, query: Tensor, key: Tensor, mask: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each block's last token looking at the right option's word."""
        rows, blocks = batch.with_options()
        if not len(rows):
            return torch.zeros(())
        at = batch.last[rows, blocks]
        logs = _log_attention(query[rows, :, at], key[rows], mask[rows, :, at])
        right = self.n_prefix + batch.options[rows, blocks, batch.correct[rows, blocks]]
        return -logs[torch.arange(len(rows)), :, right].mean()

    def option_loss(self, text: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of telling from the option words' states [B, T, d] which is right and which letter each has."""
        rows, blocks = batch.with_options()
        if not len(rows):
            return torch.zeros(())
        states = text[rows[:, None], batch.options[rows, blocks]]
        logits = self.heads["option"](F.rms_norm(states, states.shape[-1:]))
        letters = torch.arange(len(LETTERS)).repeat(len(rows))
        right = F.cross_entropy(logits[..., 0], batch.correct[rows, blocks])
        return right + F.cross_entropy(logits[..., 1:].flatten(0, 1), letters)

    def guidance(self, query: Tensor, key: Tensor, mask: Tensor, batch: Batch) -> Tensor:
        """Divergence of the attention of each block's last token and option words from what the question asks about.

        The target gives every relevant token and the first token of the sequence the same weight, so that the weight
        left on the first token, 1 / (n + 1), tells how many there are.
        """
        rows, blocks, at = batch.readers()
        target = torch.zeros(len(rows), key.shape[2])
        target[:, 0] = 1.0
        target[:, self.n_prefix - self.n_visual : self.n_prefix] = batch.relevant[rows, blocks].float()
        target = target / target.sum(-1, keepdim=True)
        seen = mask[rows, :, at]
        return _divergence(target[:, None], _log_attention(query[rows, :, at], key[rows], seen), seen)

    def heads_of(self, projected: Tensor) -> Tensor:
        """[B, L, d] → [B, heads, L, D]."""
        assert self.size.kv_heads == self.size.heads
        return projected.unflatten(-1, (self.size.heads, -1)).transpose(1, 2)

    def answer(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Loss of *answer*: cross-entropy of the answers, and the guiding losses."""
        text, parts = self.read(batch)
        rows, blocks = (batch.last >= 0).nonzero(as_tuple=True)
        logits = self.model.lm_head(text[rows, batch.last[rows, blocks]])
        target = batch.answer[rows, blocks]
        answer = F.cross_entropy(logits, target)
        letters = torch.tensor(self.processor.tokenizer.convert_tokens_to_ids(list(LETTERS)))
        choice = torch.isin(target, letters)
        right = logits.argmax(-1) == target
        loss = answer + sum((ANSWER_WEIGHTS[name] * part for name, part in parts.items()), torch.zeros(()))
        return loss, {
            "answer": answer.item(),
            "choice_accuracy": right[choice].float().mean().item() if choice.any() else math.nan,
            "word_accuracy": right[~choice].float().mean().item() if (~choice).any() else math.nan,
            **{name: part.item() for name, part in parts.items()},
        }

    # The prefix: `<bos> user` and the visual tokens

    def positions(self, batch: Batch) -> Tensor:
        """Position of every token of the prefix and of every block, [B, L]."""
        prefix = torch.arange(self.n_prefix)[None].expand(len(batch.ids), -1)
        return torch.cat([prefix, self.n_prefix + batch.place], 1)

    def state(self, i: int, videos: Tensor) -> Tensor:
        """Stored visual tokens [B, V, d]: the projector's output for i = 0, else the residual after layer i - 1."""
        return torch.from_numpy(self.states[i][videos.numpy()].astype(np.float32))

    @torch.no_grad()
    def run_prefix(self, words: list[Tensor], visual: Tensor, first: int, last: int) -> list[Tensor]:
        """The prefix's residuals before layers first..last, given the words' own ones and the visual tokens'."""
        hidden = torch.cat([words[first].expand(len(visual), -1, -1), visual], 1)
        position = torch.arange(self.n_prefix)[None].expand(len(visual), -1)
        rotary = self.decoder.rotary_emb(hidden, position)
        out = [hidden]
        for layer in self.decoder.layers[first:last]:
            out.append(layer(out[-1], attention_mask=None, position_ids=position, position_embeddings=rotary))
        return out

    @torch.no_grad()
    def word_states(self) -> list[Tensor]:
        """Residuals [1, n_words, d] of the words before the video before every layer; they precede everything."""
        position = torch.arange(len(self.prefix))[None]
        out = [self.model.get_input_embeddings()(self.prefix)[None]]
        rotary = self.decoder.rotary_emb(out[0], position)
        for layer in self.decoder.layers:
            out.append(layer(out[-1], attention_mask=None, position_ids=position, position_embeddings=rotary))
        return out

    @torch.no_grad()
    def prefix_states(self, videos: Tensor) -> list[Tensor]:
        """The prefix's residuals before every layer, [B, n_prefix, d] each."""
        words = self.word_states()
        early = [
            torch.cat([words[i].expand(len(videos), -1, -1), self.state(i, videos)], 1) for i in range(EARLY_LAYERS)
        ]
        late = self.run_prefix(words, self.state(EARLY_LAYERS, videos), EARLY_LAYERS, self.size.layers - 1)
        return [*early, *late]

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
        """Keep what *see* made of every video."""

        def compute(some: slice) -> list[Tensor]:
            return [self.project(torch.from_numpy(self.pool.frames[some]).permute(0, 1, 4, 2, 3) / 127.5 - 1)]

        self.states = self.store_states("projector", 1, compute)

    @torch.no_grad()
    def store_watched(self) -> None:
        """Keep what *watch* made of every video."""
        words = self.word_states()

        def compute(some: slice) -> list[Tensor]:
            visual = torch.from_numpy(self.states[0][some].astype(np.float32))
            states = self.run_prefix(words, visual, 0, EARLY_LAYERS)
            return [state[:, len(self.prefix) :] for state in states[1:]]

        self.states = [self.states[0], *self.store_states("resid", EARLY_LAYERS, compute)]

    # Running a stage

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
        seed = self.config.seed * 10 + {"see": 1, "watch": 2, "answer": 3}[name]
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
        """Restore the checkpoint if there is one; how many steps of `stage` are done."""
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
        """All three stages, then the model folder and its training log."""
        config, layers = self.config, self.decoder.layers
        self.run_stage(
            "see",
            steps=config.see_steps,
            lr=config.see_lr,
            trained=[self.tower, self.model.model.multi_modal_projector],
            draw=lambda rng, _: self.draw_frames(rng),
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
        self.model.eval()
        self.model.save_pretrained(config.out)
        self.processor.save_pretrained(config.out)
        arguments = {k: v for k, v in asdict(config).items() if not isinstance(v, Path)}
        lines = [json.dumps({"config": arguments}), *(json.dumps(row) for row in self.history)]
        (config.out / "training_log.jsonl").write_text("\n".join(lines) + "\n")


def prefetch(draw: Callable[[np.random.Generator, int], Any], seed: int, first: int, steps: int) -> Iterator[Any]:
    """Batches number first..steps, drawn on a background thread, each from its own seed."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=3)

    def work() -> None:
        for step in range(first, steps):
            try:
                ready.put(draw(np.random.default_rng([seed, step]), step))
            except BaseException as error:  # raised again where the batch is wanted
                ready.put(error)
                return

    threading.Thread(target=work, daemon=True).start()
    for _ in range(first, steps):
        batch = ready.get()
        if isinstance(batch, BaseException):
            raise batch
        yield batch


def main() -> None:
    """Command line."""
    import tyro

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    Trainer(tyro.cli(TrainVlmConfig)).train()


if __name__ == "__main__":
    main()
