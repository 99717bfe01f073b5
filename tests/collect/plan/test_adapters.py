"""What `plan` reads in a family's config.json is what the family's adapter finds in the model that it describes."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from collect.plan.cost import clip_cost
from collect.plan.files import read_sizes
from collect.plan.model import ModelSizes
from collect.vlm import VideoVlm
from collect.vlm.conformance import clip_of, noise
from tests.collect.tiny_models import BUILDERS

SHAPES = ((48, 64), (64, 48), (50, 94), (16, 700), (700, 16), (400, 400), (8, 8), (30, 200))
"""Height and width of frames; the last ones are beyond every budget of pixels, or below it."""


@pytest.fixture(params=BUILDERS)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def vlm(family: str, tiny_vlms: Callable[[str], VideoVlm]) -> VideoVlm:
    return tiny_vlms(family)


@pytest.fixture
def sizes(family: str, tiny_folders: Callable[[str], Path]) -> ModelSizes:
    return read_sizes(str(tiny_folders(family)))


def matrices(modules: Iterable[nn.Module]) -> int:
    """Weights of the linear layers of modules."""
    return sum(part.weight.numel() for module in modules for part in module.modules() if isinstance(part, nn.Linear))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_frames", [1, 2, 4, 5])
def test_a_clip_has_the_time_steps_patches_and_tokens_of_the_plan(
    vlm: VideoVlm, sizes: ModelSizes, shape: tuple[int, int], n_frames: int
) -> None:
    prefix = vlm.prefix(clip_of([noise(*shape)] * n_frames))
    grid, patches = prefix.grid, vlm.grid(prefix, "vision/0")
    found = (grid.n_t, patches.n_rows * patches.n_cols, grid.n_rows * grid.n_cols)
    assert sizes.layout.counts(n_frames, *shape) == found
    assert patches.n_t == grid.n_t


def test_stored_bytes_are_those_of_the_models_own_hidden_states(vlm: VideoVlm, sizes: ModelSizes) -> None:
    prefix = vlm.prefix(clip_of([noise(50, 94)] * 5))
    for site in ("vision/0", "projector", "resid/1"):
        hidden = vlm.visual_residuals([prefix], [site])[site]
        cost = clip_cost(sizes, [site], "float32", n_frames=5, height=50, width=94)
        assert cost.bytes == hidden.nbytes + 16 * hidden.shape[1]  # and four 32-bit coordinates per token


def test_the_decoder_is_the_models(vlm: VideoVlm, sizes: ModelSizes) -> None:
    layers: Any = vlm.decoder.layers
    config = vlm.family.config.get_text_config()
    assert sizes.family == vlm.family.model_type
    assert (sizes.decoder.n_layers, sizes.decoder.d_model) == (len(layers), vlm.d_model)
    assert sizes.decoder.layer_parameters == matrices(layers[:1])
    assert (sizes.decoder.n_heads, sizes.decoder.n_kv_heads) == (config.num_attention_heads, config.num_key_value_heads)
    assert sizes.decoder.head_dim == layers[0].self_attn.head_dim
    assert sizes.decoder.vocabulary == vlm.model.get_input_embeddings().num_embeddings


def test_the_tower_is_the_models(vlm: VideoVlm, sizes: ModelSizes) -> None:
    layers = vlm.family.vision_layers
    assert (sizes.tower.n_layers, sizes.tower.width) == (len(layers), vlm.family.d_vision)
    assert sizes.tower.layer_parameters == matrices(layers[:1])
