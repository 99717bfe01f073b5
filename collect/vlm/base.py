"""What all families of video VLMs share: prompts, visual tokens, hidden states at sites, and logits resumed after one.

In a causal VLM the video stands before the question, so the residuals at the visual tokens do not depend on it. A
prompt is therefore split once: the prefix ends after the last visual token, the suffix is the rest for one question.
What differs between families (how the processor lays tokens over pixels, how the model embeds them, where it counts
positions otherwise, who sees whom) is one class per family beside this module.

The decoder is always run on input embeddings, with positions and masks made here; `collect.vlm.check` compares that
with the model's own forward pass for every checkpoint that is loaded.
"""

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from collect.tokens.grid import TokenGrid
from collect.vlm.prompt import Embedded, Prefix, PrefixCache, Projected, prompt_positions
from collect.vlm.prompting import PromptingModel
from collect.vlm.sites import Point, Site, read_points, resume, stop_at


class VideoVlm(PromptingModel):
    """A video VLM of one family; build it with `load_vlm`."""

    @abstractmethod
    def project(self, pixels: Mapping[str, Tensor], n_clips: int) -> Projected:
        """Run the vision tower and the projector on a batch of equally sized clips.

        Args:
            pixels: their vision inputs, joined along the first axis.
            n_clips: how many clips.
        """

    def with_features(self, prefixes: Sequence[Prefix]) -> list[Prefix]:
        """Run the vision tower and the projector, once per distinct prefix, and keep the result in place of the pixels.

        Worth its memory where one clip serves many forward passes; all prefixes must have the same size.
        """
        distinct = {id(p): p for p in prefixes if p.features is None}
        done: dict[int, Prefix] = {}
        if distinct:
            with torch.no_grad():
                seen = self.project(self._stack([p.pixels for p in distinct.values()]), len(distinct))
            done = {key: _seen(p, seen, row) for row, (key, p) in enumerate(distinct.items())}
        return [done.get(id(p), p) for p in prefixes]

    def visual_residuals(
        self, prefixes: Sequence[Prefix], sites: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch token d_site"]]:
        """Hidden states at the sites, by one forward pass that has no question and ends at the last of them.

        The tokens of a site lie where `grid` says: at `vision/i` they are the vision tower's, elsewhere the visual
        tokens in the decoder.

        Args:
            prefixes: clips of one size.
            sites: names of sites; the result has them in this order.

        Raises:
            UserError: the model has no such site.
        """
        parsed = [self.site(name) for name in sites]
        vision = sorted((site for site in parsed if site.kind == "vision"), key=lambda site: site.order)
        later = [site for site in parsed if site.kind != "vision"]
        found: dict[str, Tensor] = {}
        with torch.inference_mode():
            if vision:
                assert all(p.features is None for p in prefixes), "the frames of these prefixes are gone"
                pixels = self._stack([p.pixels for p in prefixes])
                points = [Point(name=site.name, module=self.vision_layers[site.layer]) for site in vision]
                with read_points(points, stop=not later) as seen:
                    projected = self.project(pixels, len(prefixes))
                    prefixes = [_seen(p, projected, row) for row, p in enumerate(prefixes)]
                grid = cast("TokenGrid", prefixes[0].vision_grid)
                found = {name: self.vision_tokens(x, pixels, len(prefixes), grid) for name, x in seen.items()}
            if later:
                embedded = self.embed(prefixes, None)
                hidden = self._run_to(later, embedded)
                at = embedded.visual_positions
                found |= {name: x[:, at.to(x.device)] for name, x in hidden.items()}
        return {name: found[name] for name in sites}

    def vision_tokens(
        self,
        hidden: Float[Tensor, "*rows d_vision"],
        pixels: Mapping[str, Tensor],  # noqa: ARG002
        n_clips: int,
        grid: TokenGrid,
    ) -> Float[Tensor, "batch token d_vision"]:
        """Bring what a layer of the vision tower returns into the order of the grid; class tokens are dropped."""
        n_patches = grid.n_rows * grid.n_cols
        return hidden[:, hidden.shape[1] - n_patches :].reshape(n_clips, grid.n_tokens, -1)

    def embed(self, prefixes: Sequence[Prefix], suffixes: Sequence[Int64[Tensor, " _"]] | None) -> Embedded:
        """Embed one prompt per prefix and suffix; the vision tower runs once per distinct prefix.

        Args:
            prefixes: clips of one layout; the same object may stand there several times.
            suffixes: one per prefix, from `suffix`; None embeds the prefixes alone.
        """
        prefixes = self.with_features(prefixes)
        first = prefixes[0]
        assert all(torch.equal(p.slots, first.slots) for p in prefixes), "clips of one batch differ in layout"
        tails = [torch.empty(0, dtype=torch.int64)] * len(prefixes) if suffixes is None else suffixes
        rows = [torch.cat([p.input_ids[0], tail.cpu()]) for p, tail in zip(prefixes, tails, strict=True)]
        lengths = torch.tensor([len(row) for row in rows])
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        n_tokens = ids.shape[1]
        with torch.no_grad():
            embeds = self.text_embeddings(ids)
            features = torch.stack([cast("Tensor", p.features) for p in prefixes])
            embeds[:, first.slots.to(embeds.device)] = features.to(embeds)
        positions = torch.stack([prompt_positions(p, n_tokens) for p in prefixes], dim=1)
        blocks = None
        if first.blocks is not None:
            blocks = nn.functional.pad(first.blocks, (0, n_tokens - len(first.blocks)), value=-1).to(embeds.device)
        deep = [p.deep for p in prefixes if p.deep is not None]
        return Embedded(
            inputs_embeds=embeds,
            attention_mask=(torch.arange(n_tokens)[None] < lengths[:, None]).to(embeds.device),
            position_ids=(positions[0] if len(positions) == 1 else positions).to(embeds.device),
            visual_positions=first.visual_positions.to(embeds.device),
            last=(lengths - 1).to(embeds.device),
            blocks=blocks,
            deep=torch.stack(deep, dim=1) if deep else None,
        )

    def residual(self, emb: Embedded, site: str) -> Float[Tensor, "batch token d_model"]:
        """Hidden states of whole prompts at a site; `projector` and `resid_pre/0` are the input embeddings.

        Raises:
            UserError: the model has no such site, or it does not hold the residual stream.
        """
        parsed = self.resumable(site)
        if parsed.layers_before == 0:
            return emb.inputs_embeds
        with torch.no_grad():
            return self._run_to([parsed], emb)[site]

    def logits_from(
        self, site: str, residual: Float[Tensor, "batch token d_model"], emb: Embedded
    ) -> Float[Tensor, "batch vocab"]:
        """Run on from the residual at a site and return float32 logits at each prompt's last token.

        Differentiable with respect to `residual` where gradients are enabled.

        Raises:
            UserError: the model has no such site, or it does not hold the residual stream.
        """
        parsed = self.resumable(site)
        hidden = resume(self.decoder, parsed, residual, **self._embedded_kwargs(emb, parsed.layer))
        return self.head(hidden[torch.arange(len(hidden), device=hidden.device), emb.last.to(hidden.device)])

    def cache_prefix(self, prefix: Prefix) -> PrefixCache:
        """Run the decoder over a prefix once and keep its keys and values, for `logits_after`."""
        from transformers import DynamicCache

        (prefix,) = self.with_features([prefix])
        emb = self.embed([prefix], None)
        cache: Any = DynamicCache(config=cast("Any", self.model).config.get_text_config())
        with torch.no_grad():
            cast("Any", self.decoder)(
                inputs_embeds=emb.inputs_embeds, past_key_values=cache, use_cache=True, **self._embedded_kwargs(emb, 0)
            )
        return PrefixCache(prefix=prefix, keys_values=cache)

    def logits_after(
        self, cache: PrefixCache, suffixes: Sequence[Int64[Tensor, " _"]]
    ) -> Float[Tensor, "suffix vocab"]:
        """Answer questions about a cached prefix: float32 logits at each question's last token.

        Args:
            cache: from `cache_prefix`; it can be used again.
            suffixes: from `suffix`.
        """
        lengths = torch.tensor([len(suffix) for suffix in suffixes])
        ids = nn.utils.rnn.pad_sequence([suffix.cpu() for suffix in suffixes], batch_first=True)
        n, n_prefix = ids.shape[1], cache.n_tokens
        is_real = torch.arange(n)[None] < lengths[:, None]
        mask = torch.cat([torch.ones(len(ids), n_prefix, dtype=torch.bool), is_real], dim=1)
        positions = prompt_positions(cache.prefix, n_prefix + n)[:, None, n_prefix:].expand(-1, len(ids), -1)
        keys_values = copy.deepcopy(cache.keys_values)
        keys_values.batch_repeat_interleave(len(ids))
        with torch.no_grad():
            hidden: Tensor = cast("Any", self.decoder)(
                inputs_embeds=self.text_embeddings(ids),
                past_key_values=keys_values,
                use_cache=True,
                attention_mask=mask.to(self.device),
                position_ids=(positions[0] if len(positions) == 1 else positions).to(self.device),
            ).last_hidden_state
            return self.head(hidden[torch.arange(len(ids)), lengths - 1])

    def decoder_kwargs(
        self,
        *,
        position_ids: Int64[Tensor, "*axes row token"],
        visual_positions: Int64[Tensor, " visual"],  # noqa: ARG002
        layer: int,  # noqa: ARG002
        allowed: Bool[Tensor, "token token"] | None = None,
        blocks: Int64[Tensor, " token"] | None = None,  # noqa: ARG002
        deep: Float[Tensor, "deep row visual d_model"] | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """What the decoder must be told about rows of tokens beside their hidden states.

        Args:
            position_ids: positions, on one axis or several.
            visual_positions: where the visual tokens stand in every row.
            layer: the first layer that is still to add its DeepStack features: the layer of the site to run on from.
            allowed: which key (column) each query (row) may see; None where rows are plainly causal. Right padding
                needs no mask then: no real token comes after it, and attention kernels take their causal path.
            blocks: blocks of tokens that see each other.
            deep: DeepStack features.
        """
        kwargs: dict[str, Any] = {"position_ids": position_ids}
        if allowed is not None:
            kwargs["attention_mask"] = additive_mask(allowed, self.dtype).expand(position_ids.shape[-2], -1, -1, -1)
        return kwargs

    def _embedded_kwargs(self, emb: Embedded, layer: int) -> dict[str, Any]:
        return self.decoder_kwargs(
            position_ids=emb.position_ids,
            visual_positions=emb.visual_positions,
            layer=layer,
            blocks=emb.blocks,
            deep=emb.deep,
        )

    def _run_to(self, sites: Sequence[Site], emb: Embedded) -> dict[str, Tensor]:
        return stop_at(self.decoder, sites, emb.inputs_embeds, **self._embedded_kwargs(emb, 0))

    def _stack(self, pixels: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Join the vision inputs of several clips along their first axis, floating-point ones in the model's type."""
        joined = {name: torch.cat([p[name] for p in pixels]).to(self.device) for name in pixels[0]}
        return {name: x.to(self.dtype) if x.is_floating_point() else x for name, x in joined.items()}


def additive_mask(allowed: Bool[Tensor, "token token"], dtype: torch.dtype) -> Float[Tensor, "1 1 token token"]:
    """Zero where a query may see a key, the type's lowest number elsewhere."""
    zero = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return zero.masked_fill(~allowed, torch.finfo(dtype).min)[None, None]


def _seen(prefix: Prefix, seen: Projected, row: int) -> Prefix:
    deep = None if seen.deep is None else seen.deep[:, row]
    return replace(prefix, pixels={}, features=seen.features[row], deep=deep)
