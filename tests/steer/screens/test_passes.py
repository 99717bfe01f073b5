"""Many edits at once give what each gives alone, whatever the batch, and whether the model shows its keys or not."""

import pytest
import torch

from ask.answers import changes
from ask.cases import Case, edited_logits
from collect.vlm import VideoVlm
from steer.codes import CodedCases, VideoCodes
from steer.effects import Editor, effects
from steer.reference import summarise
from steer.screens.passes import Passes, ablations, joined
from steer.screens.prefix import SparseChange
from tests.collect.conftest import tiny_folders, tiny_vlms  # noqa: F401  # fixtures
from tests.steer.screens.test_prefix import case_of, dense, edits_of, vlm  # noqa: F401  # fixtures
from tests.steer.test_effects import ABLATE, case_and_codes, editor, target
from tests.steer.test_hooked import strong_sae


class One(CodedCases):
    """A single video."""

    def __init__(self, case: Case, codes: VideoCodes) -> None:
        self._one = case, codes

    def __getitem__(self, video_id: str) -> tuple[Case, VideoCodes]:
        return self._one


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_the_order_and_the_batch_of_edits_do_not_matter(vlm: VideoVlm, batch_size: int) -> None:  # noqa: F811
    model, case = case_of(vlm, "resid/0")
    residuals = case.sequences.visual
    sae = strong_sae(residuals)
    own = Editor(model=model, sae=sae, reference=summarise(residuals, sae), batch_size=batch_size)
    codes = VideoCodes.of(sae, residuals)
    passes, edits = Passes(own, One(case, codes)), edits_of(case)
    assert passes.shows_prefix("v")
    logits, mass = edited_logits(model, case, (dense(case, each) for each in edits), 1)
    expected = changes(case.logits, case.mass, logits, mass, case.correct, case.values)
    found = passes.total("v", edits)
    torch.testing.assert_close(found.delta_margin, expected.delta_margin, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.kl, expected.kl, rtol=0, atol=1e-4)
    alone = torch.cat([passes.direct("v", [each]) for each in edits])
    torch.testing.assert_close(passes.direct("v", edits), alone, rtol=0, atol=1e-4)


def test_a_model_that_takes_no_cache_runs_every_token_and_has_no_direct_effects() -> None:
    own = editor(scale=0.5)
    case, codes = case_and_codes(own)
    passes = Passes(own, One(case, codes))
    assert not passes.shows_prefix("v")
    found = passes.total("v", ablations(own, codes, [0, 4]))
    rows = [row for latent in (0, 4) for row in effects(own, case, codes, target(latent), [ABLATE])]
    deltas = torch.tensor([row["delta_margin"] for row in rows]).reshape(-1, 2)
    torch.testing.assert_close(found.delta_margin[: len(deltas)], deltas, rtol=0, atol=1e-6)
    with pytest.raises(AssertionError, match="no direct effects"):
        passes.direct("v", ablations(own, codes, [0]))


def test_ablations_and_their_sum_by_hand() -> None:
    own = editor(scale=0.5)
    codes = VideoCodes(
        token=torch.tensor([0, 0, 1, 3]),
        latent=torch.tensor([2, 1, 2, 1]),
        value=torch.tensor([1.0, 2, 3, 4]),
        n_tokens=4,
    )
    one, two, silent = ablations(own, codes, [1, 2, 5])
    # Latent j writes 0.5 on dimension j.
    assert one.token.tolist() == [0, 3]
    assert one.change[:, 1].tolist() == [-1.0, -2.0]
    assert two.token.tolist() == [0, 1]
    assert two.change[:, 2].tolist() == [-0.5, -1.5]
    assert len(silent.token) == 0
    both = joined([two, one, silent], 4)
    assert both.token.tolist() == [0, 1, 3]
    assert both.change[:, 1:3].tolist() == [[-1.0, -0.5], [0.0, -1.5], [-2.0, 0.0]]
    nothing = joined([SparseChange(token=silent.token, change=silent.change)], 4)
    assert nothing.change.shape == (0, 8)
