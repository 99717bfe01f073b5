"""The sizes of a video VLM that decide what it costs: its vision tower, its decoder, and how frames become tokens.

Visual tokens are counted as each family's processor lays them out; the vision tower's own tokens (patches) are more.
"""

import math
from dataclasses import dataclass


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
    """Patches along each side of a visual token; 0 if `per_frame` says it all."""
    image_px: int = 0
    """Side that every frame is resized to; 0 if frames keep their own size."""
    per_frame: int = 0
    """Visual tokens of a frame, whatever its size; 0 if they depend on its size."""
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
    """The sizes of a video VLM that decide its cost."""

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
