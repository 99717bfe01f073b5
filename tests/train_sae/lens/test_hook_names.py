"""Other libraries' names of hooks."""

import pytest

from train_sae.lens.hook_names import is_site, same_place, site_of_hook


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("resid/12", "resid/12"),
        ("projector", "projector"),
        ("vision/3", "vision/3"),
        ("blocks.12.hook_resid_post", "resid/12"),
        ("blocks.0.hook_resid_pre", "resid_pre/0"),
        ("blocks.3.hook_attn_out", "attn_out/3"),
        ("blocks.3.hook_mlp_out", "mlp_out/3"),
        ("blocks.3.hook_in", "resid_pre/3"),
        ("blocks.3.hook_out", "resid/3"),
        ("blocks.3.mlp.hook_out", "mlp_out/3"),
        ("model.layers.20", "resid/20"),
        ("layers.20", "resid/20"),
        ("model.language_model.layers.7", "resid/7"),
        ("transformer.h.11", "resid/11"),
        ("model.vision_tower.vision_model.encoder.layers.4", "vision/4"),
        ("model.visual.blocks.4", "vision/4"),
    ],
)
def test_hooks_that_are_sites(hook: str, site: str) -> None:
    assert site_of_hook(hook) == site


@pytest.mark.parametrize(
    "hook",
    [
        *("", "resid", "resid/01", "resid/-1", "layer 12", "12"),
        *("blocks.3.hook_resid_mid", "blocks.3.attn.hook_z", "blocks.3.ln2.hook_normalized", "blocks.3.hook_mlp_in"),
        *("model.layers.3.self_attn", "model.layers.3.mlp", "model.embed_tokens", "blocks.x.hook_resid_post"),
    ],
)
def test_hooks_that_are_no_site(hook: str) -> None:
    assert site_of_hook(hook) is None
    assert not is_site(hook)


def test_the_first_layer_reads_what_the_projector_gives() -> None:
    assert set(same_place("projector")) == set(same_place("resid_pre/0")) == {"projector", "resid_pre/0"}
    assert same_place("resid/0") == ("resid/0",)
