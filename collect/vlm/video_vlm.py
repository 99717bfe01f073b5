"""A loaded video VLM: hidden states at sites without a question, and logits resumed after one.

In a causal VLM the video comes before the question, so the residuals at the visual tokens do not depend on the
question. A
prompt is therefore split once: the prefix ends after the last visual token, the suffix is the rest for one question.
What differs between families is in a `VlmFamily`, and what the processor does with a clip or a question in `Prompts`.

The decoder is always run on input embeddings, with positions and masks made here; `collect.vlm.check` compares that
with the model's own forward pass for every checkpoint that is loaded.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from collect.errors import UserError
from collect.tokens.grid import TokenGrid
from collect.video.decode import Clip
from collect.vlm.attention import attention_mask, deepstack_kwargs, visible_in_blocks
from collect.vlm.family import VlmFamily
from collect.vlm.prompt import Embedded, Prefix, prompt_positions
from collect.vlm.prompts import Prompts
from collect.vlm.sites import Point, Site, model_device, parse_site, read_points, resume, site_names, stop_at


class VideoVlm:
    """A video VLM; build it with `load_vlm`.

    Args:
        family: the adapter of the model's family, which holds the model and its processor.
        fingerprint: hash of the checkpoint.

    Raises:
        UserError: the chat template does not write exactly one placeholder for a video.
    """

    def __init__(self, family: VlmFamily, *, fingerprint: str) -> None:
        self.family = family
        self.name = family.name
        self.fingerprint = fingerprint
        self.prompts = Prompts(family)

    @property
    def default_frames(self) -> int:
        """Frames of a clip if the user gives no number."""
        return self.family.default_frames

    @property
    def model(self) -> nn.Module:
        """The transformers model."""
        return self.family.model

    @property
    def decoder(self) -> nn.Module:
        """The text model, with `.layers`."""
        return self.family.decoder

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return len(cast("nn.ModuleList", self.decoder.layers))

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.family.d_model

    @property
    def device(self) -> torch.device:
        """Device that inputs go to; with a device map, results may come from others."""
        return model_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the residual stream."""
        # Read from the norms, because a quantised model keeps its matrices as integers.
        return next(p.dtype for p in self.decoder.parameters() if p.is_floating_point())

    def describe(self) -> dict[str, Any]:
        """What a manifest says about the model."""
        return {
            "name": self.name,
            "family": self.family.model_type,
            "fingerprint": self.fingerprint,
            "n_layers": self.n_layers,
            "d_model": self.d_model,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    # Sites

    def sites(self) -> tuple[str, ...]:
        """Names of all sites, in the order in which a forward pass reaches them."""
        return site_names(self.n_layers, len(self.family.vision_layers))

    def residual_sites(self) -> tuple[str, ...]:
        """Names of the sites that hold the residual stream: those that `residual` and `logits_from` take."""
        return tuple(name for name in self.sites() if self.site(name).is_residual)

    def site(self, name: str) -> Site:
        """Read a site's name.

        Raises:
            UserError: the model has no such site.
        """
        return parse_site(name, self.n_layers, len(self.family.vision_layers))

    def resumable(self, name: str) -> Site:
        """Read the name of a site that holds the whole residual stream, so that the decoder can be resumed there.

        Raises:
            UserError: the model has no such site, or cannot be resumed there.
        """
        site = self.site(name)
        if not site.is_residual:
            raise UserError(
                f"{self.name} cannot run on from {name}, which is not the whole residual stream: use `projector`, "
                "`resid_pre/i` or `resid/i`."
            )
        return site

    def width(self, site: str) -> int:
        """Length of the vectors at a site."""
        return self.family.d_vision if self.site(site).kind == "vision" else self.d_model

    def grid(self, prefix: Prefix, site: str) -> TokenGrid:
        """Where the tokens at a site lie: all sites but those of the vision tower share one grid."""
        if self.site(site).kind != "vision":
            return prefix.grid
        assert prefix.vision_grid is not None, "a prefix from `prefix` has it"
        return prefix.vision_grid

    # Prompts

    def processed(self, clip: Clip, question: str = "") -> dict[str, Any]:
        """All inputs of the model for a clip and a question, as its own processor makes them."""
        return self.prompts.processed(clip, question)

    def prefix(self, clip: Clip) -> Prefix:
        """Preprocess a clip and tokenise the prompt up to its last visual token. Runs on the CPU, in any thread.

        Raises:
            UserError: the checkpoint's processor does not lay out tokens as its family does.
        """
        return self.prompts.prefix(clip)

    def suffix(self, question: str) -> Int64[Tensor, " n_suffix"]:
        """Token ids after the visual tokens for one user text, up to where the model's answer begins.

        Raises:
            UserError: prefix and suffix together are not what the processor makes of the whole chat (checked once).
        """
        return self.prompts.suffix(question)

    def answer_ids(self, letters: Sequence[str] = ("A", "B", "C")) -> Int64[Tensor, " letter"]:
        """Token ids of the answers' letters.

        Raises:
            UserError: a letter is not one token of this model.
        """
        return self.prompts.answer_ids(letters).to(self.device)

    # Forward passes

    def with_features(self, prefixes: Sequence[Prefix]) -> list[Prefix]:
        """Run the vision tower and the projector, once per distinct prefix, and keep the result in place of the pixels.

        Worth its memory if one clip serves many forward passes; all prefixes must have the same size.
        """
        distinct = {id(p): p for p in prefixes if p.features is None}
        done: dict[int, Prefix] = {}
        if distinct:
            with torch.no_grad():
                done = dict(zip(distinct, self._projected([*distinct.values()]), strict=True))
        return [done.get(id(p), p) for p in prefixes]

    def visual_residuals(
        self, prefixes: Sequence[Prefix], sites: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch token d_site"]]:
        """Hidden states at the sites, by one forward pass that has no question and ends at the last of them.

        `grid` says where the tokens of a site lie: at `vision/i` they are the vision tower's, elsewhere the visual
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
                points = [Point(name=site.name, module=self.family.vision_layers[site.layer]) for site in vision]
                with read_points(points, stop=not later) as hidden:
                    prefixes = self._projected(prefixes)
                grid = cast("TokenGrid", prefixes[0].vision_grid)
                found = {name: self.family.vision_tokens(x, grid) for name, x in hidden.items()}
            if later:
                embedded = self.embed(prefixes, None)
                hidden = self._run_to(later, embedded)
                at = embedded.visual_positions
                found |= {name: x[:, at.to(x.device)] for name, x in hidden.items()}
        return {name: found[name] for name in sites}

    def embed(self, prefixes: Sequence[Prefix], suffixes: Sequence[Int64[Tensor, " _"]] | None) -> Embedded:
        """Embed one prompt per prefix and suffix; the vision tower runs once per distinct prefix.

        Args:
            prefixes: clips of one layout; the same object may occur several times.
            suffixes: one per prefix, from `suffix`; None embeds the prefixes alone.
        """
        prefixes = self.with_features(prefixes)
        first = prefixes[0]
        places = first.feature_positions
        assert all(torch.equal(p.feature_positions, places) for p in prefixes), "clips of one batch differ in layout"
        tails = [torch.empty(0, dtype=torch.int64)] * len(prefixes) if suffixes is None else suffixes
        rows = [torch.cat([p.input_ids[0], tail.cpu()]) for p, tail in zip(prefixes, tails, strict=True)]
        lengths = torch.tensor([len(row) for row in rows])
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        n_tokens = ids.shape[1]
        with torch.no_grad():
            embeds = self.text_embeddings(ids)
            features = torch.stack([cast("Tensor", p.features) for p in prefixes])
            embeds[:, _sent(places, embeds.device)] = features.to(embeds)
        positions = torch.stack([prompt_positions(p, n_tokens) for p in prefixes], dim=1)
        blocks = None
        if first.blocks is not None:
            blocks = _sent(nn.functional.pad(first.blocks, (0, n_tokens - len(first.blocks)), value=-1), embeds.device)
        deepstack = [p.deepstack for p in prefixes if p.deepstack is not None]
        return Embedded(
            inputs_embeds=embeds,
            attention_mask=_sent(torch.arange(n_tokens)[None] < lengths[:, None], embeds.device),
            position_ids=_sent(positions[0] if len(positions) == 1 else positions, embeds.device),
            visual_positions=_sent(first.visual_positions, embeds.device),
            last=_sent(lengths - 1, embeds.device),
            blocks=blocks,
            deepstack=torch.stack(deepstack, dim=1) if deepstack else None,
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
        """Resume from the residual at a site and return float32 logits at each prompt's last token.

        Differentiable with respect to `residual` where gradients are enabled.

        Raises:
            UserError: the model has no such site, or it does not hold the residual stream.
        """
        parsed = self.resumable(site)
        hidden = resume(self.decoder, parsed, residual, **self.embedded_kwargs(emb, layer=parsed.layer))
        return self.head(hidden[torch.arange(len(hidden), device=hidden.device), emb.last.to(hidden.device)])

    def text_embeddings(self, ids: Int64[Tensor, "*batch token"]) -> Float[Tensor, "*batch token d_model"]:
        """Input embeddings of token ids; those of visual tokens are arbitrary, to be overwritten."""
        # The id of a visual token may lie outside the table of embeddings.
        known = _sent(ids.masked_fill(ids == self.family.visual_token_id, 0), self.device)
        return cast("Any", self.model).get_input_embeddings()(known)

    def head(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Logits in float32 from the decoder's output."""
        return cast("Any", self.model).get_output_embeddings()(hidden).float()

    def decoder_kwargs(
        self,
        *,
        position_ids: Int64[Tensor, "*axes row token"],
        visual_positions: Int64[Tensor, " visual"],
        layer: int,
        allowed: Bool[Tensor, "token token"] | None = None,
        blocks: Int64[Tensor, " token"] | None = None,
        deepstack: Float[Tensor, "deepstack row visual d_model"] | None = None,
    ) -> dict[str, Any]:
        """The decoder's arguments for rows of tokens, besides their hidden states.

        Args:
            position_ids: positions, on one axis or several.
            visual_positions: where the visual tokens are in every row.
            layer: the first layer that is still to add its DeepStack features: the layer of the site to resume from.
            allowed: which key (column) each query (row) may see; None if rows are plainly causal. Right padding
                needs no mask then: no real token comes after it, and attention kernels take their causal path.
            blocks: blocks of tokens that see each other in both directions.
            deepstack: DeepStack features.
        """
        kwargs: dict[str, Any] = {"position_ids": position_ids}
        if blocks is not None:
            allowed = visible_in_blocks(allowed, blocks)
        if allowed is not None:
            kwargs["attention_mask"] = attention_mask(allowed, position_ids, self.dtype, self.family.sliding_window)
        if deepstack is not None:
            kwargs |= deepstack_kwargs(deepstack, visual_positions, position_ids.shape[-1], layer)
        return kwargs

    def embedded_kwargs(self, emb: Embedded, *, layer: int) -> dict[str, Any]:
        """`decoder_kwargs` of whole prompts."""
        return self.decoder_kwargs(
            position_ids=emb.position_ids,
            visual_positions=emb.visual_positions,
            layer=layer,
            blocks=emb.blocks,
            deepstack=emb.deepstack,
        )

    def _run_to(self, sites: Sequence[Site], emb: Embedded) -> dict[str, Tensor]:
        return stop_at(self.decoder, sites, emb.inputs_embeds, **self.embedded_kwargs(emb, layer=0))

    def _projected(self, prefixes: Sequence[Prefix]) -> list[Prefix]:
        """Run the vision side on clips of one size, and keep the result in place of the pixels."""
        n = len(prefixes)
        joined = {
            name: _sent(torch.cat([p.pixels[name] for p in prefixes]), self.device) for name in prefixes[0].pixels
        }
        pixels = {name: x.to(self.dtype) if x.is_floating_point() else x for name, x in joined.items()}
        found = self.family.project(pixels)
        features = found.features.reshape(n, -1, found.features.shape[-1])
        deepstack: list[Tensor | None] = [None] * n
        if found.deepstack is not None:
            deepstack = list(found.deepstack.reshape(len(found.deepstack), n, -1, features.shape[-1]).unbind(1))
        return [
            replace(p, pixels={}, features=x, deepstack=deep)
            for p, x, deep in zip(prefixes, features, deepstack, strict=True)
        ]


def _sent(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on its way to a device: the host waits until it is read, not until the device gets to it."""
    return x.to(device, non_blocking=True)
