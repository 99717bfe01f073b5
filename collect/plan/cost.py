"""What collecting costs: operations, bytes and seconds, as pure arithmetic on a model's sizes.

An operation is a multiplication or an addition. A matrix product of n tokens with W weights takes 2 n W; attention of n
tokens over themselves takes 4 n^2 d, and half of that if it is causal. Normalisations, activations and the copy to the
host are left out; so is the question, which `collect` does not run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collect.errors import UserError
from collect.plan.model import ModelSizes

DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
COORDS_BYTES = 16
"""Bytes per token in the store, besides its activations: four 32-bit numbers."""

DECODED_PIXELS_PER_S = 1.4e8
"""A core's speed of decoding H.264 (600 frames per second of 640 x 360), if no probe has measured it."""

GPUS: Mapping[str, tuple[float, float]] = {
    "h100": (989e12, 80e9),
    "h200": (989e12, 141e9),
    "b200": (2250e12, 192e9),
    "a100": (312e12, 80e9),
    "l40s": (362e12, 48e9),
    "a10g": (70e12, 24e9),
    "l4": (121e12, 24e9),
    "rtx4090": (165e12, 24e9),
}
"""Peak of dense 16-bit matrix products in operations per second, and bytes of memory, from the makers' data sheets."""

FLOAT32_SHARE = 0.5
"""Share of the 16-bit peak that float32 reaches through TF32."""


@dataclass(frozen=True, kw_only=True)
class Depth:
    """How far a forward pass runs for one site, and what it finds there."""

    decoder_layers: float
    """A half means a layer's attention alone."""
    tower_layers: int
    is_vision: bool


@dataclass(frozen=True, kw_only=True)
class ClipCost:
    """One clip of a certain length and size."""

    n_frames: int
    tower_tokens: int
    visual_tokens: int
    operations: float
    bytes: float

    def __add__(self, other: "ClipCost") -> "ClipCost":
        """Both together."""
        return ClipCost(
            n_frames=self.n_frames + other.n_frames,
            tower_tokens=self.tower_tokens + other.tower_tokens,
            visual_tokens=self.visual_tokens + other.visual_tokens,
            operations=self.operations + other.operations,
            bytes=self.bytes + other.bytes,
        )


NOTHING = ClipCost(n_frames=0, tower_tokens=0, visual_tokens=0, operations=0.0, bytes=0.0)


def site_depth(site: str, model: ModelSizes) -> Depth:
    """How far the pass runs for a site.

    Raises:
        UserError: the model has no such site.
    """
    kind, _, number = site.partition("/")
    limit = model.tower.n_layers if kind == "vision" else model.decoder.n_layers
    if kind == "projector" and not number:
        return Depth(decoder_layers=0.0, tower_layers=model.tower.n_layers, is_vision=False)
    if kind not in ("vision", "resid", "resid_pre", "attn_out", "mlp_out") or not number.isdecimal():
        raise UserError(f"{site!r} is no hook site: use `projector`, or `resid/i` and the like with a layer's number.")
    layer = int(number)
    if layer >= limit:
        raise UserError(f"{model.name} has no site {site}: layers are numbered 0 to {limit - 1}.")
    if kind == "vision":
        return Depth(decoder_layers=0.0, tower_layers=layer + 1, is_vision=True)
    beyond = {"resid_pre": 0.0, "attn_out": 0.5, "mlp_out": 1.0, "resid": 1.0}[kind]
    return Depth(decoder_layers=layer + beyond, tower_layers=model.tower.n_layers, is_vision=False)


def clip_cost(
    model: ModelSizes, sites: Sequence[str], dtype: str, *, n_frames: int, height: int, width: int
) -> ClipCost:
    """Cost of one clip.

    Args:
        model: the model's sizes.
        sites: hook sites; the pass stops after the last.
        dtype: of the stored activations.
        n_frames: frames of the clip.
        height: of the video's frames, in pixels.
        width: of the video's frames, in pixels.

    Raises:
        UserError: the model has no such site.
    """
    depths = [site_depth(site, model) for site in sites]
    n_steps, patches, per_step = model.layout.counts(n_frames, height, width)
    tower_tokens, visual_tokens = n_steps * patches, n_steps * per_step
    tower, decoder = model.tower, model.decoder

    per_tower_layer = 2 * tower_tokens * tower.layer_parameters + 4 * tower_tokens * patches * tower.width
    patch_numbers = 3 * model.layout.temporal * model.layout.patch_px**2
    operations = 2 * tower_tokens * patch_numbers * tower.width
    operations += max(depth.tower_layers for depth in depths) * per_tower_layer
    if not all(depth.is_vision for depth in depths):
        operations += 2 * max(tower_tokens, visual_tokens) * model.projector_parameters
    d_attention = decoder.n_heads * decoder.head_dim
    per_layer = 2 * visual_tokens * decoder.layer_parameters + 2 * visual_tokens**2 * d_attention
    operations += max(depth.decoder_layers for depth in depths) * per_layer

    n_bytes = 0.0
    for is_vision, tokens, d_in in ((True, tower_tokens, tower.width), (False, visual_tokens, decoder.d_model)):
        n_sites = sum(depth.is_vision == is_vision for depth in depths)
        n_bytes += n_sites * tokens * d_in * DTYPE_BYTES[dtype] + (COORDS_BYTES * tokens if n_sites else 0)
    return ClipCost(
        n_frames=n_frames,
        tower_tokens=tower_tokens,
        visual_tokens=visual_tokens,
        operations=float(operations),
        bytes=n_bytes,
    )


def gpu_seconds(operations: float, gpu: str, dtype: str, utilisation: float) -> float:
    """Seconds that one GPU takes."""
    peak = GPUS[gpu][0] * (FLOAT32_SHARE if dtype == "float32" else 1.0)
    return operations / (peak * utilisation)
