"""Video VLMs behind one interface: prompts, visual tokens, residuals at a site, and logits resumed after a site.

In a causal VLM the video stands before the question, so the residuals at the visual tokens do not depend on it. A
prompt is therefore split once: the prefix ends after the last visual token, the suffix is the rest for one question.
`VideoVlm` holds what families share; what differs (how the processor lays tokens over pixels, how the model embeds
them) is one class per family in `collect.vlm_families`. Loading and fingerprints are in `collect.vlm_files`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from collect.chat import Chat
from collect.config import AttnImplementation, Dtype
from collect.decode import Clip
from collect.errors import UserError
from collect.sites import Site, model_device, parse_site, resume, site_names, stop_at
from collect.token_grid import TokenGrid
from collect.vlm_files import fingerprint, load_weights, resolve_model


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefix:
    """One clip as the model's prompt sees it, up to and including the last visual token."""

    input_ids: Int64[Tensor, "1 n_prefix"]
    pixels: Mapping[str, Tensor]
    """Inputs of the vision tower by the names that the model's `forward` gives them; empty once `features` is set."""
    visual_positions: Int64[Tensor, " visual"]
    grid: TokenGrid
    features: Float[Tensor, "visual d_model"] | None = None
    """Output of the projector, where it has been computed (`VideoVlm.with_features`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """A batch of whole prompts as input embeddings, right-padded; all have their visual tokens at the same places."""

    inputs_embeds: Float[Tensor, "batch token d_model"]
    attention_mask: Bool[Tensor, "batch token"]
    position_ids: Int64[Tensor, "batch token"]
    visual_positions: Int64[Tensor, " visual"]
    last: Int64[Tensor, " batch"]
    """Index of each prompt's last real token, whose logits answer the question."""


class VideoVlm(ABC):
    """A video VLM of one family; build it with `load_vlm`."""

    family: ClassVar[str]
    """The `model_type` of the family's transformers configuration."""
    default_frames: ClassVar[int]
    """Frames a clip has where the user names no number."""

    def __init__(self, *, name: str, model: nn.Module, processor: Any, fingerprint: str) -> None:
        """Wrap a loaded model and its processor; the model is put in evaluation mode and its weights are frozen."""
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.fingerprint = fingerprint
        self._chat = Chat(name, processor, self.visual_token_id)
        self._is_chat_checked = False

    @abstractmethod
    def preprocess(self, clip: Clip) -> tuple[dict[str, Tensor], TokenGrid]:
        """Run the family's video processor: inputs of the vision tower (with a batch axis) and where its tokens lie."""

    @abstractmethod
    def project(self, pixels: Mapping[str, Tensor]) -> Float[Tensor, "batch visual d_model"]:
        """Run the vision tower and the projector on a batch of equally sized clips."""

    @property
    @abstractmethod
    def visual_token_id(self) -> int:
        """Id of the placeholder that stands where a visual token goes."""

    @property
    def decoder(self) -> nn.Module:
        """The text model, with `.layers`."""
        return cast("nn.Module", cast("Any", self.model).get_decoder())

    @property
    def device(self) -> torch.device:
        """Device of the model and of everything it returns."""
        return model_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the residual stream."""
        return next(self.decoder.parameters()).dtype

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return len(cast("nn.ModuleList", self.decoder.layers))

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(cast("Any", self.model).config.get_text_config().hidden_size)

    def sites(self) -> tuple[str, ...]:
        """Names of all sites, in the order in which a forward pass reaches them."""
        return site_names(self.n_layers)

    def prefix(self, clip: Clip) -> Prefix:
        """Preprocess a clip and tokenise the prompt up to its last visual token. Runs on the CPU, in any thread."""
        pixels, grid = self.preprocess(clip)
        ids = self._prefix_ids(grid)
        return Prefix(
            input_ids=ids[None],
            pixels=pixels,
            visual_positions=(ids == self.visual_token_id).nonzero()[:, 0],
            grid=grid,
        )

    def max_visual_tokens(self, n_frames: int) -> int:
        """Most visual tokens that a clip of so many frames can have, whatever its size."""
        return self.preprocess(_blank_clip(n_frames))[1].n_tokens

    def suffix(self, question: str) -> Int64[Tensor, " n_suffix"]:
        """Token ids after the visual tokens for one user text, up to where the model's answer begins.

        Raises:
            UserError: prefix and suffix together are not what the processor makes of the whole chat (checked once).
        """
        suffix = self._chat.suffix(question)
        if not self._is_chat_checked:
            clip = _blank_clip(n_frames=2)
            if not torch.equal(
                self._chat.whole(question, list(clip.frames)), torch.cat([self.prefix(clip).input_ids[0], suffix])
            ):
                raise UserError(
                    f"The processor of {self.name} tokenises a chat otherwise than prefix and suffix together: "
                    "this checkpoint's processor is not supported; use another checkpoint of the family."
                )
            self._is_chat_checked = True
        return suffix

    def with_features(self, prefixes: Sequence[Prefix]) -> list[Prefix]:
        """Run the vision tower and the projector, once per distinct prefix, and keep the result in place of the pixels.

        Worth its memory where one clip serves many forward passes; all prefixes must have the same size.
        """
        distinct = {id(p): p for p in prefixes if p.features is None}
        done: dict[int, Prefix] = {}
        if distinct:
            pixels = _stack([p.pixels for p in distinct.values()], self.device, self.dtype)
            with torch.no_grad():
                features = self.project(pixels)
            done = {
                key: replace(p, pixels={}, features=f) for (key, p), f in zip(distinct.items(), features, strict=True)
            }
        return [done.get(id(p), p) for p in prefixes]

    def visual_residuals(
        self, prefixes: Sequence[Prefix], sites: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch visual d_model"]]:
        """Residuals of all visual tokens at the sites, by one forward pass that has no question and ends at the last.

        Args:
            prefixes: clips of one size.
            sites: names of sites; the result has them in this order.

        Raises:
            UserError: the model has no such site.
        """
        parsed = [parse_site(name, self.n_layers) for name in sites]
        with torch.inference_mode():
            embedded = self.embed(prefixes, None)
            found = self._run_to(parsed, embedded)
            return {name: hidden[:, embedded.visual_positions] for name, hidden in found.items()}

    def embed(self, prefixes: Sequence[Prefix], suffixes: Sequence[Int64[Tensor, " _"]] | None) -> Embedded:
        """Embed one prompt per prefix and suffix; the vision tower runs once per distinct prefix.

        Args:
            prefixes: clips of one size; the same object may stand there several times.
            suffixes: one per prefix, from `suffix`; None embeds the prefixes alone.
        """
        prefixes = self.with_features(prefixes)
        tails = [torch.empty(0, dtype=torch.int64)] * len(prefixes) if suffixes is None else suffixes
        positions = prefixes[0].visual_positions
        assert all(torch.equal(p.visual_positions, positions) for p in prefixes), "clips of one batch differ in size"
        rows = [torch.cat([p.input_ids[0], tail.cpu()]) for p, tail in zip(prefixes, tails, strict=True)]
        lengths = torch.tensor([len(row) for row in rows])
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
        with torch.no_grad():
            embeds = cast("Any", self.model).get_input_embeddings()(ids)
            features = torch.stack([cast("Tensor", p.features) for p in prefixes])
            embeds[:, positions.to(self.device)] = features.to(embeds.dtype)
        places = torch.arange(ids.shape[1])
        return Embedded(
            inputs_embeds=embeds,
            attention_mask=(places[None] < lengths[:, None]).to(self.device),
            position_ids=places.expand(ids.shape).to(self.device),
            visual_positions=positions.to(self.device),
            last=(lengths - 1).to(self.device),
        )

    def residual(self, emb: Embedded, site: str) -> Float[Tensor, "batch token d_model"]:
        """Hidden states of whole prompts at a site; `projector` and `resid_pre/0` are the input embeddings.

        Raises:
            UserError: the model has no such site.
        """
        parsed = parse_site(site, self.n_layers)
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
            UserError: the model has no such site.
        """
        parsed = parse_site(site, self.n_layers)
        hidden = resume(self.decoder, parsed, residual, **self._decoder_kwargs(emb))
        rows = torch.arange(len(hidden), device=hidden.device)
        return cast("Any", self.model).get_output_embeddings()(hidden[rows, emb.last]).float()

    def answer_ids(self, letters: Sequence[str] = ("A", "B", "C")) -> Int64[Tensor, " letter"]:
        """Token ids of the answers' letters.

        Raises:
            UserError: a letter is not one token of this model.
        """
        return self._chat.answer_ids(letters).to(self.device)

    def describe(self) -> dict[str, Any]:
        """What a manifest says about the model."""
        return {
            "name": self.name,
            "family": self.family,
            "fingerprint": self.fingerprint,
            "n_layers": self.n_layers,
            "d_model": self.d_model,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def _decoder_kwargs(self, emb: Embedded) -> dict[str, Any]:
        # Right padding needs no mask in a causal decoder: no real token comes after it, and without a mask the
        # attention kernels take their causal path.
        return {"position_ids": emb.position_ids}

    def _run_to(self, sites: Sequence[Site], emb: Embedded) -> dict[str, Tensor]:
        return stop_at(self.decoder, sites, emb.inputs_embeds, **self._decoder_kwargs(emb))

    def _prefix_ids(self, grid: TokenGrid) -> Int64[Tensor, " n_prefix"]:
        return torch.cat([self._chat.head, torch.full((grid.n_tokens,), self.visual_token_id)])


def load_vlm(
    model: str,
    *,
    dtype: Dtype = "auto",
    device: str = "auto",
    attn_implementation: AttnImplementation = "sdpa",
) -> VideoVlm:
    """Load a video VLM from a folder or the hub; code from the checkpoint is never run, pickles are never read.

    Args:
        model: a folder in transformers' layout, or a hub id such as `facebook/Perception-LM-1B`.
        dtype: of the weights; `auto` takes the checkpoint's own.
        device: such as `cpu` or `cuda:1`; `auto` takes a GPU where there is one.
        attn_implementation: transformers' attention kernel.

    Raises:
        UserError: there is no such model or device, or its family is not supported.
    """
    from collect.vlm_families import FAMILIES

    folder, family = resolve_model(model)
    if family not in FAMILIES:
        raise UserError(
            f"{model} is of the family {family!r}, which is not supported: use a model of one of "
            f"{', '.join(sorted(FAMILIES))}."
        )
    target = _device(device)
    network, processor = load_weights(folder, model, dtype=dtype, attn_implementation=attn_implementation)
    return FAMILIES[family](name=model, model=network.to(target), processor=processor, fingerprint=fingerprint(folder))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise UserError(f"There is no device {name!r} here: use `auto`, `cpu` or one that torch can reach.") from None


def _stack(pixels: Sequence[Mapping[str, Tensor]], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Join the vision inputs of several clips along their batch axis, floating-point ones in the model's type."""
    joined = {name: torch.cat([p[name] for p in pixels]).to(device) for name in pixels[0]}
    return {name: x.to(dtype) if x.is_floating_point() else x for name, x in joined.items()}


def _blank_clip(n_frames: int) -> Clip:
    ids = np.arange(n_frames)
    return Clip(
        video_id="blank",
        path=Path("blank"),
        frames=np.zeros((n_frames, 64, 64, 3), dtype=np.uint8),
        times_s=ids / 30.0,
        frame_ids=ids,
        frame_rate=30.0,
        n_frames=n_frames,
    )
