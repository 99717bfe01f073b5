"""The sizes of a video VLM that decide what it costs, read from its config.json: no weights, no model code, no network.

Visual tokens are counted as each family's processor lays them out; the vision tower's own tokens (patches) are more.
Nothing is filled in here: `plan_files` completes a config.json first. What is missing or no size is named.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from collect.errors import UserError
from collect.printable import printable

MAX_SIZE = 2**40
"""A larger number in a configuration is no size."""

PERCEPTION_ENCODERS: Mapping[str, Mapping[str, int]] = {
    "vit_pe_lang_large_patch14_448": {"embed_dim": 1024, "depth": 23, "mlp": 4096, "patch": 14, "image": 448},
    "vit_pe_lang_gigantic_patch14_448": {"embed_dim": 1536, "depth": 47, "mlp": 8960, "patch": 14, "image": 448},
}
"""Towers of PerceptionLM, which its config.json only names, but for single sizes that differ (timm.models.eva)."""
_ELSEWHERE = {
    "internvl_chat": " (which runs code of its own; InternVL's checkpoints whose names end in -hf are of the family "
    "internvl)",
}
"""What is known about families that are not supported."""


@dataclass(frozen=True, kw_only=True)
class Tower:
    """A vision tower: full attention within a frame (or a pair of frames)."""

    n_layers: int
    width: int
    d_mlp: int
    n_mlp_matrices: int = 2

    @property
    def layer_parameters(self) -> int:
        """Weights of the matrices of one layer."""
        return 4 * self.width**2 + self.n_mlp_matrices * self.width * self.d_mlp


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A text model with grouped-query attention and a gated MLP in each layer."""

    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocabulary: int

    @property
    def layer_parameters(self) -> int:
        """Weights of the matrices of one layer."""
        attention = self.d_model * self.head_dim * 2 * (self.n_heads + self.n_kv_heads)
        return attention + 3 * self.d_model * self.d_mlp


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How frames become patches and visual tokens."""

    patch_px: int
    merge: int
    """Patches along each side of a visual token; 0 where `per_frame` says it all."""
    image_px: int = 0
    """Side that every frame is brought to; 0 where its own size counts."""
    per_frame: int = 0
    """Visual tokens of a frame, whatever its size; 0 where they follow from its size."""
    temporal: int = 1
    """Frames that share a time step."""
    min_px: int = 0
    max_px: int = 0
    """Bounds on the pixels of a frame, or of all frames of a clip where `bounds_whole_clip`."""
    bounds_whole_clip: bool = False

    def counts(self, n_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Time steps, patches of one step in the tower, and visual tokens of one step."""
        if self.image_px:
            patches = (self.image_px // self.patch_px) ** 2
            return n_frames, patches, self.per_frame
        n_steps = -(-n_frames // self.temporal)
        rows, cols = self._resized(max(n_frames, self.temporal), height, width)
        patches = rows * cols // self.patch_px**2
        return n_steps, patches, patches // self.merge**2

    def _resized(self, n_frames: int, height: int, width: int) -> tuple[int, int]:
        """Size to which Qwen's processors bring a frame: multiples of a token's side, the shape kept, within bounds.

        Source: `smart_resize` of Qwen2-VL and Qwen3-VL in transformers.
        """
        side = self.patch_px * self.merge
        n = n_frames if self.bounds_whole_clip else 1
        n_whole = round(n / self.temporal) * self.temporal if self.bounds_whole_clip else 1
        rows, cols = round(height / side) * side, round(width / side) * side
        if n_whole * rows * cols > self.max_px:
            scale = math.sqrt(n * height * width / self.max_px)
            rows = max(side, math.floor(height / scale / side) * side)
            cols = max(side, math.floor(width / scale / side) * side)
        elif n_whole * rows * cols < self.min_px:
            scale = math.sqrt(self.min_px / (n * height * width))
            rows, cols = math.ceil(height * scale / side) * side, math.ceil(width * scale / side) * side
        return rows, cols


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """A video VLM as far as its cost goes."""

    name: str
    family: str
    decoder: Decoder
    tower: Tower
    layout: Layout

    @property
    def projector_parameters(self) -> int:
        """Weights between tower and decoder, taken as a two-layer perceptron over the patches that are joined."""
        joined = self.layout.merge**2 if self.layout.merge > 1 and not self.layout.image_px else 1
        return joined * self.tower.width * self.decoder.d_model + self.decoder.d_model**2

    @property
    def parameters(self) -> int:
        """Weights of the whole model without the output matrix, which collecting does not use."""
        text, tower = self.decoder, self.tower
        layers = text.n_layers * text.layer_parameters + tower.n_layers * tower.layer_parameters
        return layers + self.projector_parameters + text.vocabulary * text.d_model


def sizes_of(model: str, config: Mapping[str, Any], processor: Mapping[str, Any]) -> ModelSizes:
    """Sizes from the content of config.json and of the processor's configuration.

    Raises:
        UserError: a size is missing, or the family is not supported.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        shown = printable(repr(family), 60)
        raise UserError(
            f"{model} is of the family {shown}{_ELSEWHERE.get(str(family), '')}, whose cost is not known: use one of "
            f"{', '.join(sorted(FAMILIES))}."
        )
    numbers = _Numbers(model, config)
    layout, tower = FAMILIES[family](numbers, processor)
    return ModelSizes(name=model, family=family, decoder=_decoder(numbers), tower=tower, layout=layout)


class _Numbers:
    """Numbers of a configuration, looked up by path; what is missing is a `UserError`."""

    def __init__(self, model: str, config: Mapping[str, Any]) -> None:
        self.model = model
        self.config = config

    def part(self, name: str) -> Mapping[str, Any]:
        found: object = self.config.get(name)
        return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}

    def get(self, part: str, *names: str, default: int | None = None) -> int:
        """The first of several names for one size."""
        inside = self.part(part) if part else self.config
        for name in names:
            value = inside.get(name)
            if isinstance(value, (list, tuple)) and value:
                value = cast("list[object]", value)[0]
            if isinstance(value, Mapping) and value:
                value = next(iter(cast("Mapping[str, object]", value).values()))
            if value is None:
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 <= value < MAX_SIZE:
                raise UserError(
                    f"The configuration of {self.model} has {part}{'.' if part else ''}{name} = "
                    f"{printable(repr(value), 60)}, which is no size: mend its config.json, or measure with --probe."
                )
            return int(value)
        if default is None:
            raise UserError(
                f"The configuration of {self.model} lacks {part}{'.' if part else ''}{names[0]}: add it to its "
                "config.json, or measure with --probe."
            )
        return default


def _decoder(numbers: _Numbers) -> Decoder:
    part = "text_config" if numbers.part("text_config") else ""
    inside = numbers.part(part) if part else numbers.config
    if inside.get("num_experts") or inside.get("num_local_experts"):
        raise UserError(f"{numbers.model} mixes experts, whose cost is not reckoned here: measure with --probe.")
    d_model = numbers.get(part, "hidden_size")
    n_heads = numbers.get(part, "num_attention_heads")
    return Decoder(
        n_layers=numbers.get(part, "num_hidden_layers"),
        d_model=d_model,
        d_mlp=numbers.get(part, "intermediate_size"),
        n_heads=n_heads,
        n_kv_heads=numbers.get(part, "num_key_value_heads", default=n_heads),
        head_dim=numbers.get(part, "head_dim", default=d_model // n_heads),
        vocabulary=numbers.get(part, "vocab_size"),
    )


def _tower(numbers: _Numbers, n_mlp_matrices: int = 2) -> Tower:
    return Tower(
        n_layers=numbers.get("vision_config", "num_hidden_layers", "depth"),
        width=numbers.get("vision_config", "hidden_size", "embed_dim"),
        d_mlp=numbers.get("vision_config", "intermediate_size"),
        n_mlp_matrices=n_mlp_matrices,
    )


def _square(numbers: _Numbers, per_side: float) -> Layout:
    """Frames brought to one square; `per_side` patches are joined or pooled along each side of a token."""
    image, patch = numbers.get("vision_config", "image_size"), numbers.get("vision_config", "patch_size")
    side = math.ceil(image // patch / per_side)
    return Layout(patch_px=patch, image_px=image, merge=0, per_frame=side * side)


def _perception_lm(numbers: _Numbers, _: Mapping[str, Any]) -> tuple[Layout, Tower]:
    pool = numbers.get("", "projector_pooling_ratio", default=1)
    vision = numbers.part("vision_config")
    encoder = PERCEPTION_ENCODERS.get(str(vision.get("architecture")))
    if encoder is None and vision.get("model_type") == "timm_wrapper":
        shown = printable(repr(vision.get("architecture")), 60)
        raise UserError(
            f"{numbers.model} has the vision tower {shown}, whose sizes are not known, only those of "
            f"{' and '.join(PERCEPTION_ENCODERS)}: measure with --probe."
        )
    if encoder is None:
        layout = _square(numbers, 1.0)
        side = layout.image_px // layout.patch_px // pool
        return Layout(patch_px=layout.patch_px, image_px=layout.image_px, merge=0, per_frame=side**2), _tower(numbers)
    own = _Numbers(numbers.model, {"vision_config.model_args": vision.get("model_args")})

    def size(name: str, known: str) -> int:
        return own.get("vision_config.model_args", name, default=encoder[known])

    image, patch, width = size("img_size", "image"), size("patch_size", "patch"), size("embed_dim", "embed_dim")
    layout = Layout(patch_px=patch, image_px=image, merge=0, per_frame=(image // patch // pool) ** 2)
    d_mlp = encoder["mlp"] * width // encoder["embed_dim"]
    return layout, Tower(n_layers=size("depth", "depth"), width=width, d_mlp=d_mlp)


def _llava_onevision(numbers: _Numbers, _: Mapping[str, Any]) -> tuple[Layout, Tower]:
    return _square(numbers, 2.0), _tower(numbers)


def _llava_next_video(numbers: _Numbers, _: Mapping[str, Any]) -> tuple[Layout, Tower]:
    return _square(numbers, float(numbers.get("", "spatial_pool_stride", default=2))), _tower(numbers)


def _internvl(numbers: _Numbers, _: Mapping[str, Any]) -> tuple[Layout, Tower]:
    ratio = numbers.config.get("downsample_ratio", 0.5)
    if not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
        raise UserError(
            f"The configuration of {numbers.model} has downsample_ratio = {printable(repr(ratio), 60)}, which is not "
            "above 0 and at most 1: mend its config.json, or measure with --probe."
        )
    return _square(numbers, 1 / ratio), _tower(numbers)


def _smolvlm(numbers: _Numbers, _: Mapping[str, Any]) -> tuple[Layout, Tower]:
    return _square(numbers, float(numbers.get("", "scale_factor", default=2))), _tower(numbers)


def _gemma3(numbers: _Numbers, _: Mapping[str, Any]) -> tuple[Layout, Tower]:
    layout = _square(numbers, 1.0)
    per_frame = numbers.get("", "mm_tokens_per_image", default=256)
    return Layout(patch_px=layout.patch_px, image_px=layout.image_px, merge=0, per_frame=per_frame), _tower(numbers)


def _qwen(numbers: _Numbers, processor: Mapping[str, Any], *, is_third: bool) -> tuple[Layout, Tower]:
    found = processor.get("size")
    size = cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}
    earlier = {} if is_third else processor  # names of earlier versions, which go before `size` in the second only
    default_min, default_max = (4096, 25165824) if is_third else (128 * 28 * 28, 28 * 28 * 768)
    layout = Layout(
        patch_px=numbers.get("vision_config", "patch_size", "spatial_patch_size", default=16 if is_third else 14),
        merge=numbers.get("vision_config", "spatial_merge_size", default=2),
        temporal=numbers.get("vision_config", "temporal_patch_size", default=2),
        min_px=int(earlier.get("min_pixels") or size.get("shortest_edge") or default_min),
        max_px=int(earlier.get("max_pixels") or size.get("longest_edge") or default_max),
        bounds_whole_clip=is_third,
    )
    return layout, _tower(numbers, n_mlp_matrices=2 if is_third else 3)


FAMILIES: Mapping[str, Callable[[_Numbers, Mapping[str, Any]], tuple[Layout, Tower]]] = {
    "perception_lm": _perception_lm,
    "llava_onevision": _llava_onevision,
    "llava_next_video": _llava_next_video,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "gemma3": _gemma3,
    "qwen2_5_vl": lambda numbers, processor: _qwen(numbers, processor, is_third=False),
    "qwen3_vl": lambda numbers, processor: _qwen(numbers, processor, is_third=True),
}
"""How each family lays out frames, by its `model_type`."""
