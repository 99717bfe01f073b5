"""The sweep's ablations are those of plain hooks on the transformers model: the demo's kind and every tiny family."""

from collections.abc import Callable

import pytest
import torch

from ask.cases import build_case, edited_logits, embed_items, residuals_at
from ask.packing import Asked
from collect.vlm import VideoVlm
from collect.vlm.conformance import clip_of
from steer.codes import VideoCodes
from steer.effects import Editor
from steer.reference import summarise
from steer.screens.passes import ablations
from tests.collect.conftest import tiny_folders, tiny_vlms  # noqa: F401  # fixtures
from tests.collect.tiny_models import BUILDERS
from tests.collect.video_files import noise
from tests.steer.hooked import ablated_letters, run
from tests.steer.toy import counting_item, noncounting_item
from train_sae.sae import Sae

CLIP = clip_of([noise(48, 64, seed=i) for i in range(4)])
ITEMS = (counting_item("v", 0), counting_item("v", 1, options=("2", "4", "7")), noncounting_item("v"))
LAYER, D_SAE = 0, 12


def strong_sae(residuals: torch.Tensor) -> Sae:
    """Latents that write as much as the residuals are long, so that their ablations move the logits of a tiny model."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(D_SAE, residuals.shape[1], generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    return Sae(
        architecture="topk",
        k=3,
        W_enc=directions.T.contiguous(),
        W_dec=directions * 500,
        b_enc=torch.zeros(D_SAE),
        b_dec=residuals.mean(dim=0),
        threshold=torch.zeros(D_SAE),
        metadata={},
    )


@pytest.mark.parametrize("family", BUILDERS)
def test_ablations_agree_with_hooks(family: str, tiny_vlms: Callable[[str], VideoVlm]) -> None:  # noqa: F811
    vlm = tiny_vlms(family)
    texts = [text for item in ITEMS for text in item.prompts]
    _, residuals = run(vlm, CLIP, texts[0], LAYER, None)
    sae = strong_sae(residuals.float())
    latent, value, pointers = sae.encode_sparse(residuals.float())
    codes = torch.zeros(len(residuals), D_SAE)
    codes[torch.repeat_interleave(torch.arange(len(residuals)), pointers.diff()), latent.long()] = value
    active = [int(each) for each in codes.any(dim=0).nonzero()[:, 0]][:3]
    expected = torch.stack([ablated_letters(vlm, CLIP, texts, LAYER, codes, sae.W_dec, each) for each in active])

    model = Asked.at(vlm, f"resid/{LAYER}")
    prefix = vlm.with_features([vlm.prefix(CLIP)])[0]
    case = build_case(model, residuals_at(vlm, embed_items(vlm, prefix, ITEMS, packed=True), model.site), ITEMS)
    editor = Editor(model=model, sae=sae, reference=summarise(residuals.float(), sae), batch_size=2)
    own = VideoCodes.of(sae, case.sequences.visual)
    edits = ablations(editor, own, active)
    whole, _ = edited_logits(model, case, (each.dense(own.n_tokens) for each in edits), editor.batch_size)
    prefix = editor.prefixes.of(case)
    assert prefix is not None
    got, _ = prefix.total(edits)

    for each in (got, whole):
        torch.testing.assert_close(each.flatten(1, 2), expected, rtol=0, atol=1e-4)
    moved = (expected - torch.stack([case.logits.flatten(0, 1)] * len(active))).abs().amax(dim=(1, 2))
    assert (moved > 5e-4).any()  # several times the tolerance: the edit is seen
