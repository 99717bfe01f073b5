"""The demo model in training: its auxiliary heads, and the losses of the stages of `demo.vlm.train`.

Nothing here updates a weight. If a stage needs the outputs of earlier stages for a video, `state` provides them.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ask.questions import LETTERS
from demo.vlm.architecture import SIZES, build_model, build_processor
from demo.vlm.start_weights import fan_in, grid_waves, whitening_patches
from demo.vlm.token_labels import ASKED, HAPPENED, SEEN
from demo.vlm.training_batches import Batch, Frames
from demo.vlm.training_losses import attention_mask, divergence, label_loss, log_attention, rotate, tracking_targets
from demo.world.scene import SAMPLES

EARLY_LAYERS = 2  # trained by *watch*
GUIDED_LAYER, GUIDED_HEADS = 3, 2  # these heads are shown where to look for the answer
ANSWER_WEIGHTS = {"guidance": 0.5, "option": 0.5, "pointing": 0.3}
WATCH_WEIGHTS = {"happened": 1.0, "seen": 0.1, "frame": 0.1, "tracking": 0.1, "asked": 0.2, "word": 0.2, "letter": 0.1}


class Network:
    """The model with linear heads that only training uses.

    Args:
        seed: fixes all initial weights but those that `start_weights` takes from frames.
    """

    def __init__(self, seed: int) -> None:
        self.size = SIZES["demo"]
        self.processor = build_processor(self.size)
        self.model = build_model(self.size, seed).train()
        self.tower = cast("Any", self.model.model.vision_tower)
        self.decoder = self.model.model.language_model
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
        self.states: list[np.ndarray] = []

    def start_weights(self, frames: np.ndarray) -> None:
        """Set the initial weights; uint8 frames [N, px, px, 3] decide those of the patch embedding."""
        weight, bias = whitening_patches(
            torch.from_numpy(frames.copy()).permute(0, 3, 1, 2) / 127.5 - 1, self.size.patch_px, self.size.vision_width
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
            rotate(self.heads_of(project(normed))[:, :2], cos, sin) for project in (attention.q_proj, attention.k_proj)
        )
        mask = torch.ones(self.n_prefix, self.n_prefix, dtype=torch.bool).tril()[n_words:]
        scores = (query[:, :, n_words:] @ key.transpose(-1, -2)) / key.shape[-1] ** 0.5
        return divergence(self.tracking, scores.masked_fill(~mask, float("-inf")).log_softmax(-1), mask)

    def visual_losses(self, visual: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What the visual tokens [B, V, d] must contain after the early layers."""
        happened = self.heads["happened"](visual)
        still = self.heads["still_seen"](visual)
        where = self.where.expand(len(visual), -1, -1)
        return {
            "happened": label_loss(happened[..., : len(HAPPENED)], batch.happened),
            "frame": label_loss(happened[..., len(HAPPENED) :], self.frame.expand(len(visual), -1, -1)),
            "seen": label_loss(still, torch.cat([batch.seen, where], -1)),
        }

    def text_losses(self, text: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What the text's states [B, T, d] must contain after the early layers: words, options, what is asked."""
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

    def read(self, batch: Batch, *, through_prefix: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Final text states [B, T, d] and the guiding losses; gradients reach the prefix's own work if asked for."""
        mask = attention_mask(batch.block, self.n_prefix)[:, :, self.n_prefix :]
        position = self.positions(batch)
        prefixes = self.prefix_states(batch.videos, differentiable=through_prefix)
        text = self.model.get_input_embeddings()(batch.ids)
        cos, sin = (x[:, None] for x in self.decoder.rotary_emb(text, position))
        parts: dict[str, Tensor] = {}
        for i, layer in enumerate(self.decoder.layers):
            both = layer.input_layernorm(torch.cat([prefixes[i], text], 1))
            attention = cast("Any", layer.self_attn)
            key, value = (self.heads_of(project(both)) for project in (attention.k_proj, attention.v_proj))
            query = self.heads_of(attention.q_proj(both[:, self.n_prefix :]))
            key = rotate(key, cos, sin)
            query = rotate(query, cos[:, :, self.n_prefix :], sin[:, :, self.n_prefix :])
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
        logs = log_attention(query[rows, :, at], key[rows], mask[rows, :, at])
        right = self.n_prefix + batch.options[rows, blocks, batch.correct[rows, blocks]]
        return -logs[torch.arange(len(rows)), :, right].mean()

    def option_loss(self, text: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of reading from the option words' states [B, T, d] which is right and which letter each has."""
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
        return divergence(target[:, None], log_attention(query[rows, :, at], key[rows], seen), seen)

    def heads_of(self, projected: Tensor) -> Tensor:
        """[B, L, d] → [B, heads, L, D]."""
        assert self.size.kv_heads == self.size.heads
        return projected.unflatten(-1, (self.size.heads, -1)).transpose(1, 2)

    def answer(self, batch: Batch, *, through_prefix: bool = False) -> tuple[Tensor, dict[str, float]]:
        """Loss of *answer* and *finish*: cross-entropy of the answers, and the guiding losses."""
        text, parts = self.read(batch, through_prefix=through_prefix)
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

    def positions(self, batch: Batch) -> Tensor:
        """Position of every token of the prefix and of every block, [B, L]."""
        prefix = torch.arange(self.n_prefix)[None].expand(len(batch.ids), -1)
        return torch.cat([prefix, self.n_prefix + batch.place], 1)

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

    def prefix_states(self, videos: Tensor, *, differentiable: bool) -> list[Tensor]:
        """The prefix's residuals before every layer, [B, n_prefix, d] each."""
        words = self.word_states()
        early = [
            torch.cat([words[i].expand(len(videos), -1, -1), self.state(i, videos)], 1) for i in range(EARLY_LAYERS)
        ]
        with torch.set_grad_enabled(differentiable):
            late = self.run_prefix(words, self.state(EARLY_LAYERS, videos), EARLY_LAYERS, self.size.layers - 1)
        return [*early, *late]

    def state(self, i: int, videos: Tensor) -> Tensor:
        """Stored visual tokens [B, V, d]: the projector's output for i = 0, else the residual after layer i - 1."""
        return torch.from_numpy(self.states[i][videos.numpy()].astype(np.float32))
