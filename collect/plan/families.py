"""A family's sizes and layout, read from its config.json and its processor's: no weights, no model code, no network.

Nothing is filled in here: `collect.plan.files` completes a config.json first. The error names what is missing or is not
    a size.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from collect.errors import UserError
from collect.plan.model import Decoder, Layout, ModelSizes, Tower
from collect.printable import printable

MAX_SIZE = 2**40
"""A larger number in a configuration is not a size."""

PERCEPTION_ENCODERS: Mapping[str, Mapping[str, int]] = {
    "vit_pe_lang_large_patch14_448": {"embed_dim": 1024, "depth": 23, "mlp": 4096, "patch": 14, "image": 448},
    "vit_pe_lang_gigantic_patch14_448": {"embed_dim": 1536, "depth": 47, "mlp": 8960, "patch": 14, "image": 448},
}
"""Towers of PerceptionLM (timm.models.eva): its config.json gives only their names, and single sizes that differ."""
_ELSEWHERE = {
    "internvl_chat": " (which runs code of its own; InternVL's checkpoints whose names end in -hf are of the family "
    "internvl)",
}
"""What is known about families that are not supported."""


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
    sizes = _Config(model, config, processor)
    layout, tower = FAMILIES[family](sizes)
    return ModelSizes(name=model, family=family, decoder=_decoder(sizes), tower=tower, layout=layout)


class _Config:
    """A model's configuration and its processor's; sizes are looked up by path, and a missing one is a `UserError`."""

    def __init__(self, model: str, config: Mapping[str, Any], processor: Mapping[str, Any]) -> None:
        self.model = model
        self.content = config
        self.processor = processor

    def part(self, name: str) -> Mapping[str, Any]:
        found: object = self.content.get(name)
        return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}

    def get(self, part: str, *names: str, default: int | None = None) -> int:
        """The first of several names for one size."""
        inside = self.part(part) if part else self.content
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


def _decoder(config: _Config) -> Decoder:
    part = "text_config" if config.part("text_config") else ""
    inside = config.part(part) if part else config.content
    if inside.get("num_experts") or inside.get("num_local_experts"):
        raise UserError(f"{config.model} mixes experts, whose cost is not estimated here: measure with --probe.")
    d_model = config.get(part, "hidden_size")
    n_heads = config.get(part, "num_attention_heads")
    return Decoder(
        n_layers=config.get(part, "num_hidden_layers"),
        d_model=d_model,
        d_mlp=config.get(part, "intermediate_size"),
        n_heads=n_heads,
        n_kv_heads=config.get(part, "num_key_value_heads", default=n_heads),
        head_dim=config.get(part, "head_dim", default=d_model // n_heads),
        vocabulary=config.get(part, "vocab_size"),
    )


def _tower(config: _Config, n_mlp_matrices: int = 2) -> Tower:
    return Tower(
        n_layers=config.get("vision_config", "num_hidden_layers", "depth"),
        width=config.get("vision_config", "hidden_size", "embed_dim"),
        d_mlp=config.get("vision_config", "intermediate_size"),
        n_mlp_matrices=n_mlp_matrices,
    )


def _square(config: _Config, per_side: float) -> Layout:
    """Frames brought to one square; `per_side` patches are joined or pooled along each side of a token."""
    image, patch = config.get("vision_config", "image_size"), config.get("vision_config", "patch_size")
    side = math.ceil(image // patch / per_side)
    return Layout(patch_px=patch, image_px=image, merge=0, per_frame=side * side)


def _perception_lm(config: _Config) -> tuple[Layout, Tower]:
    pool = config.get("", "projector_pooling_ratio", default=1)
    vision = config.part("vision_config")
    encoder = PERCEPTION_ENCODERS.get(str(vision.get("architecture")))
    if encoder is None and vision.get("model_type") == "timm_wrapper":
        shown = printable(repr(vision.get("architecture")), 60)
        raise UserError(
            f"{config.model} has the vision tower {shown}, whose sizes are not known, only those of "
            f"{' and '.join(PERCEPTION_ENCODERS)}: measure with --probe."
        )
    if encoder is None:
        layout = _square(config, 1.0)
        side = layout.image_px // layout.patch_px // pool
        return Layout(patch_px=layout.patch_px, image_px=layout.image_px, merge=0, per_frame=side**2), _tower(config)
    own = _Config(config.model, {"vision_config.model_args": vision.get("model_args")}, {})

    def size(name: str, known: str) -> int:
        return own.get("vision_config.model_args", name, default=encoder[known])

    image, patch, width = size("img_size", "image"), size("patch_size", "patch"), size("embed_dim", "embed_dim")
    layout = Layout(patch_px=patch, image_px=image, merge=0, per_frame=(image // patch // pool) ** 2)
    d_mlp = encoder["mlp"] * width // encoder["embed_dim"]
    return layout, Tower(n_layers=size("depth", "depth"), width=width, d_mlp=d_mlp)


def _llava_onevision(config: _Config) -> tuple[Layout, Tower]:
    return _square(config, 2.0), _tower(config)


def _llava_next_video(config: _Config) -> tuple[Layout, Tower]:
    return _square(config, float(config.get("", "spatial_pool_stride", default=2))), _tower(config)


def _internvl(config: _Config) -> tuple[Layout, Tower]:
    ratio = config.content.get("downsample_ratio", 0.5)
    if not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
        raise UserError(
            f"The configuration of {config.model} has downsample_ratio = {printable(repr(ratio), 60)}, which is not "
            "above 0 and at most 1: mend its config.json, or measure with --probe."
        )
    return _square(config, 1 / ratio), _tower(config)


def _smolvlm(config: _Config) -> tuple[Layout, Tower]:
    return _square(config, float(config.get("", "scale_factor", default=2))), _tower(config)


def _gemma3(config: _Config) -> tuple[Layout, Tower]:
    layout = _square(config, 1.0)
    per_frame = config.get("", "mm_tokens_per_image", default=256)
    return Layout(patch_px=layout.patch_px, image_px=layout.image_px, merge=0, per_frame=per_frame), _tower(config)


def _qwen(config: _Config, *, is_third: bool) -> tuple[Layout, Tower]:
    found = config.processor.get("size")
    size = cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}
    # Names of earlier versions, which go before `size` in Qwen2.5-VL only.
    earlier = {} if is_third else config.processor
    default_min, default_max = (4096, 25165824) if is_third else (128 * 28 * 28, 28 * 28 * 768)
    layout = Layout(
        patch_px=config.get("vision_config", "patch_size", "spatial_patch_size", default=16 if is_third else 14),
        merge=config.get("vision_config", "spatial_merge_size", default=2),
        temporal=config.get("vision_config", "temporal_patch_size", default=2),
        min_px=int(earlier.get("min_pixels") or size.get("shortest_edge") or default_min),
        max_px=int(earlier.get("max_pixels") or size.get("longest_edge") or default_max),
        bounds_whole_clip=is_third,
    )
    return layout, _tower(config, n_mlp_matrices=2 if is_third else 3)


FAMILIES: Mapping[str, Callable[[_Config], tuple[Layout, Tower]]] = {
    "perception_lm": _perception_lm,
    "llava_onevision": _llava_onevision,
    "llava_next_video": _llava_next_video,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "gemma3": _gemma3,
    "qwen2_5_vl": lambda config: _qwen(config, is_third=False),
    "qwen3_vl": lambda config: _qwen(config, is_third=True),
}
"""How each family lays out frames, by its `model_type`."""
