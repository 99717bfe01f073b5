"""Every family answers questions packed behind one prefix as its own forward pass answers them one by one."""

from collections.abc import Callable

import pytest
import torch

from ask.packing import Asked, letter_logits, packing_agrees, restrict, run_to, to_sequences
from collect.errors import UserError
from collect.vlm import VideoVlm
from collect.vlm.conformance import clip_of, close
from tests.collect.conftest import tiny_folders, tiny_vlms  # noqa: F401  # fixtures
from tests.collect.tiny_models import BUILDERS
from tests.collect.video_files import noise

QUESTIONS = ("How many red balls appear in the video?", "Where is it?", "What\nA. 1\nB. 2\nC. 3")
CLIP = clip_of([noise(48, 64, seed=i) for i in range(4)])


@pytest.fixture(params=BUILDERS)
def vlm(request: pytest.FixtureRequest, tiny_vlms: Callable[[str], VideoVlm]) -> VideoVlm:  # noqa: F811
    return tiny_vlms(request.param)


def own_logits(vlm: VideoVlm) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([vlm.model(**vlm.processed(CLIP, question)).logits[:, -1] for question in QUESTIONS])


@pytest.mark.parametrize("packed", [True, False])
def test_answers_are_those_of_the_models_own_pass(vlm: VideoVlm, packed: bool) -> None:
    prefix = vlm.prefix(CLIP)
    emb = vlm.embed([prefix] * 3, [vlm.suffix(question) for question in QUESTIONS])
    letters, expected = vlm.answer_ids(), own_logits(vlm)
    assert packing_agrees(Asked(vlm=vlm, site="resid/0", letters=letters), emb)
    sites = ("projector", "resid/0", "resid_pre/1", "resid/1")
    seq = run_to(vlm, to_sequences(emb, packed=packed), sites)
    with torch.no_grad():
        for site in sites:
            twice = torch.cat([seq[site].hidden] * 2)
            got, mass = letter_logits(Asked(vlm=vlm, site=site, letters=letters), seq[site], twice)
            for edit in range(2):
                assert close(got[edit], expected[:, letters])
                assert close(mass[edit], expected.softmax(dim=1)[:, letters].sum(dim=1), 1e-4)
            fewer = restrict(seq[site], [0, 2])
            assert close(
                letter_logits(Asked(vlm=vlm, site=site, letters=letters), fewer, fewer.hidden)[0][0],
                expected[[0, 2]][:, letters],
            )


def test_sites_that_are_no_residual_are_refused(vlm: VideoVlm) -> None:
    emb = vlm.embed([vlm.prefix(CLIP)], [vlm.suffix(QUESTIONS[0])])
    with pytest.raises(UserError, match="cannot run on from attn_out/0"):
        run_to(vlm, to_sequences(emb, packed=True), ["attn_out/0"])
