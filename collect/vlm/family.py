"""What differs between families of video VLMs: the class that a new family subclasses.

A family says where a model keeps its parts, which tokens its prompts have, where its visual tokens lie in a video, and
how its vision side is run. Everything else is the same for all families, in `collect.vlm.prompts` (text and tokens) and
`collect.vlm.video_vlm` (forward passes).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from collect.errors import UserError
from collect.tokens.grid import TokenGrid
from collect.video.decode import Clip
from collect.vlm.clip_metadata import video_metadata
from collect.vlm.prompt import Projected

TOWERS = ("vision_tower", "visual", "vision_model")
"""Names that models give their vision tower."""


class VlmFamily(ABC):
    """One family of video VLMs, bound to a loaded model and its processor.

    The model is put in evaluation mode and its weights are frozen.

    Args:
        name: the name that the user gave, for messages.
        model: the transformers model.
        processor: its transformers processor.

    Raises:
        UserError: the attention kernel takes no masks, and the family needs one.
    """

    model_type: ClassVar[str]
    """The `model_type` of the family's transformers configuration."""
    default_frames: ClassVar[int]
    """Frames of a clip if the user gives no number."""
    frames_are_images: ClassVar[bool] = False
    """Whether each frame is an image of its own in the chat; otherwise the clip is one video."""
    vision_inputs: ClassVar[tuple[str, ...]] = ("pixel_values_videos",)
    """What the processor makes for the vision tower, by its names."""
    n_newlines: ClassVar[int] = 0
    """Learned newlines after the last frame, which are among the visual tokens but have no place in the video."""
    has_bidirectional_frames: ClassVar[bool] = False
    """Whether the visual tokens of a frame, which are then contiguous, see each other in both directions."""

    def __init__(self, name: str, model: nn.Module, processor: Any) -> None:
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        if self.has_bidirectional_frames and "flash" in str(self.config.get_text_config()._attn_implementation):
            raise UserError(
                f"{name} lets the tokens of a frame see each other, which flash attention cannot: "
                "use --attn-implementation sdpa."
            )

    # Parts of the model

    @property
    def config(self) -> Any:
        """The model's transformers configuration."""
        return cast("Any", self.model).config

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
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.config.get_text_config().hidden_size)

    @property
    def d_vision(self) -> int:
        """Width of the vision tower's tokens."""
        return int(self.config.vision_config.hidden_size)

    @property
    def sliding_window(self) -> int | None:
        """How many positions the decoder's layers of the kind `sliding_attention` see; None if it has none."""
        return None

    # Prompts

    @property
    def visual_token_id(self) -> int:
        """Id of the token that marks the place of a visual feature."""
        found = getattr(self.config, "video_token_id", None)
        return int(found if found is not None else self.config.image_token_id)

    @property
    def placeholder(self) -> str:
        """What the chat template writes for a video (or for a frame that is an image)."""
        return str(self.processor.video_token)

    @property
    def closing_text(self) -> str:
        """What the processor writes between the last visual token and the text that follows the placeholder."""
        return ""

    def processor_arguments(self, clip: Clip) -> dict[str, Any]:
        """The processor's arguments for a clip: its frames as they are, with the times at which they are shown."""
        return {"videos": [clip.frames], "video_metadata": [video_metadata(clip)], "do_sample_frames": False}

    def position_ids(self, inputs: Mapping[str, Any]) -> Int64[Tensor, "axis token"]:
        """Positions of a prompt's tokens for the rotary embedding, on one axis or several.

        Args:
            inputs: what the processor made of a clip. `input_ids`, and everything else with one number per token, is
                cut after the first token of the text that follows the video.
        """
        return torch.arange(inputs["input_ids"].shape[1])[None]

    # Vision

    @abstractmethod
    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        """Where the visual tokens, and the tokens of the vision tower, lie in a clip.

        Args:
            pixels: what the processor made of the clip, by the names of `vision_inputs`.
            clip: the clip.
        """

    @abstractmethod
    def project(self, pixels: Mapping[str, Tensor]) -> Projected:
        """Run the vision tower and the projector on clips of one size.

        Args:
            pixels: the clips' vision inputs, joined along the first axis.

        Returns:
            The features of the first clip, of the second, and so on; each clip's in the order of its tokens.
        """

    def vision_tokens(
        self, hidden: Float[Tensor, "*rows d_vision"], grid: TokenGrid
    ) -> Float[Tensor, "clip token d_vision"]:
        """Put the output of a layer of the vision tower into the order of the grid; class tokens are dropped.

        Args:
            hidden: by default [frame, token, d_vision], class tokens first.
            grid: of one clip's tokens in the tower; all clips have the same.
        """
        n_patches = grid.n_rows * grid.n_cols
        return hidden[:, hidden.shape[1] - n_patches :].reshape(-1, grid.n_tokens, hidden.shape[-1])
