"""The parts of a loaded VLM: its decoder and vision tower, its special tokens, its sites and their widths."""

from abc import ABC
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from collect.errors import UserError
from collect.vlm.chat import Chat
from collect.vlm.sites import Site, model_device, parse_site, site_names

TOWERS = ("vision_tower", "visual", "vision_model")
"""Names that families give their vision tower."""


class LoadedModel(ABC):
    """A loaded model and its processor: what can be said about them without running anything."""

    family: ClassVar[str]
    """The `model_type` of the family's transformers configuration."""
    default_frames: ClassVar[int]
    """Frames a clip has where the user names no number."""
    by_frame: ClassVar[bool] = False
    """Whether the chat template writes each frame as an image."""

    def __init__(self, *, name: str, model: nn.Module, processor: Any, fingerprint: str) -> None:
        """Wrap a loaded model and its processor; the model is put in evaluation mode and its weights are frozen."""
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.fingerprint = fingerprint
        self._chat = Chat(
            name,
            processor,
            placeholder=self.placeholder,
            visual_token_id=self.visual_token_id,
            tail=self.tail,
            by_frame=self.by_frame,
        )

    @property
    def visual_token_id(self) -> int:
        """Id of the token that stands where a visual feature goes."""
        config = cast("Any", self.model).config
        found = getattr(config, "video_token_id", None)
        return int(found if found is not None else config.image_token_id)

    @property
    def placeholder(self) -> str:
        """What the chat template writes for a video (or for a frame)."""
        return str(self.processor.video_token)

    @property
    def tail(self) -> str:
        """What the processor writes after the last visual token in the place of a placeholder."""
        return ""

    @property
    def core(self) -> Any:
        """The model without its language-model head."""
        return getattr(self.model, "model", self.model)

    @property
    def decoder(self) -> nn.Module:
        """The text model, with `.layers`."""
        return cast("nn.Module", cast("Any", self.model).get_decoder())

    @cached_property
    def vision_layers(self) -> tuple[nn.Module, ...]:
        """Layers of the vision tower."""
        tower = next((getattr(self.core, name) for name in TOWERS if hasattr(self.core, name)), None)
        for name, module in tower.named_modules() if tower is not None else ():
            if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in ("layers", "layer", "blocks"):
                return tuple(module)
        return ()

    @property
    def device(self) -> torch.device:
        """Device that inputs go to; with a device map, results may come from others."""
        return model_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the residual stream."""
        # The norms, because a quantised model keeps its matrices as integers.
        return next(p.dtype for p in self.decoder.parameters() if p.is_floating_point())

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return len(cast("nn.ModuleList", self.decoder.layers))

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(cast("Any", self.model).config.get_text_config().hidden_size)

    @property
    def d_vision(self) -> int:
        """Width of the vision tower's tokens."""
        return int(cast("Any", self.model).config.vision_config.hidden_size)

    def sites(self) -> tuple[str, ...]:
        """Names of all sites, in the order in which a forward pass reaches them."""
        return site_names(self.n_layers, len(self.vision_layers))

    def residual_sites(self) -> tuple[str, ...]:
        """Names of the sites that hold the residual stream: those that `residual` and `logits_from` take."""
        return tuple(name for name in self.sites() if self.site(name).is_residual)

    def site(self, name: str) -> Site:
        """Read a site's name.

        Raises:
            UserError: the model has no such site.
        """
        return parse_site(name, self.n_layers, len(self.vision_layers))

    def resumable(self, name: str) -> Site:
        """Read the name of a site that holds the whole residual stream, so that the decoder can run on from it.

        Raises:
            UserError: the model has no such site, or it is no place to run on from.
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
        return self.d_vision if self.site(site).kind == "vision" else self.d_model

    def text_embeddings(self, ids: Int64[Tensor, "*batch token"]) -> Float[Tensor, "*batch token d_model"]:
        """Input embeddings of token ids; those of visual tokens are arbitrary, to be overwritten."""
        # The id of a visual token may lie outside the table of embeddings.
        known = ids.masked_fill(ids == self.visual_token_id, 0).to(self.device)
        return cast("Any", self.model).get_input_embeddings()(known)

    def head(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Logits in float32 from the decoder's output."""
        return cast("Any", self.model).get_output_embeddings()(hidden).float()

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
