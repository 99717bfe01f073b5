"""Exact runs: hand-computed deltas, no-ops, opposite signs, and controls of equal norm on the same tokens."""

from typing import Any

import pytest
import torch

from ask.cases import Case
from ask.packing import Asked
from collect.vlm import VideoVlm
from steer.codes import VideoCodes
from steer.controls import FAMILIES
from steer.edits.operations import Operation
from steer.effects import ControlSums, Editor, draw_controls, edit, effects, touches
from steer.reference import summarise
from steer.targets import Target
from tests.steer.toy import (
    LETTERS,
    N_VISUAL,
    SUBJECT,
    ToyVlm,
    counting_item,
    noncounting_item,
    toy_case,
    toy_sae,
    visual,
)

ABLATE, DOUBLE, ADD = (Operation.parse(text) for text in ("ablate", "scale:2", "add:0.5"))
EVIDENCE_TOKENS = torch.tensor([0.0, 1.0, 2.0, 3.0])
SHARE = 2.0 / 9
"""What the last of 9 tokens sees of each visual token's evidence, see the toy."""


def target(*latents: int) -> Target:
    name = "set" if len(latents) > 1 else str(latents[0])
    return Target(id=name, latents=latents, selected_by="given", subject=SUBJECT)


def editor(vlm: VideoVlm | None = None, **kwargs: Any) -> Editor:
    sample = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)) + 1.0
    sae = toy_sae(**kwargs)
    return Editor(
        model=Asked(vlm=vlm or ToyVlm(), site="resid/0", letters=LETTERS),
        sae=sae,
        reference=summarise(sample, sae),
        batch_size=3,
    )


def case_and_codes(own: Editor, noise: torch.Tensor | None = None) -> tuple[Case, VideoCodes]:
    case = toy_case(own.model.vlm, visual(EVIDENCE_TOKENS, noise), (counting_item(), noncounting_item()))
    return case, VideoCodes.of(own.sae, case.sequences.visual)


def test_ablation_of_the_planted_latent_by_hand() -> None:
    own = editor(scale=0.5)
    case, codes = case_and_codes(own)
    rows = effects(own, case, codes, target(0), [ABLATE])
    assert [row["item"] for row in rows] == ["v/0", "v/9"]
    counting, control = rows
    # The decoder writes half of the evidence back, so ablation leaves 6 - 3 of it; three of four tokens carry some.
    seen, left = torch.tensor(6 * SHARE), torch.tensor(3 * SHARE)
    margin = [3 * e - torch.logsumexp(torch.stack([e, 2 * e]), dim=0) for e in (seen, left)]
    assert counting["delta_margin"] == pytest.approx(float(margin[1] - margin[0]), abs=1e-5)
    assert counting["n_tokens_edited"] == 3
    assert counting["mean_norm"] == pytest.approx(0.5 * (1 + 2 + 3) / 3)
    counts = [
        float(torch.softmax(torch.stack([e, 2 * e, 3 * e]), dim=0) @ torch.tensor([1.0, 2, 3])) for e in (seen, left)
    ]
    assert counting["delta_expected_count"] == pytest.approx(counts[1] - counts[0], abs=1e-5)
    assert control["delta_margin"] == 0.0
    assert control["delta_expected_count"] != control["delta_expected_count"]  # NaN


def test_exact_delta_equals_a_hooked_run_of_the_whole_model() -> None:
    own = editor(scale=0.7)
    case, codes = case_and_codes(own, noise=torch.ones(N_VISUAL, 4))
    items = case.items
    emb = own.model.vlm.embed(
        [visual(EVIDENCE_TOKENS, torch.ones(N_VISUAL, 4))] * 3, [own.model.vlm.suffix(p) for p in items[0].prompts]
    )
    f = own.sae.encode(emb.inputs_embeds[0, 1:5])[:, 0]

    def hook(_module: Any, _arguments: Any, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[:, 1:5] -= f[:, None] * own.sae.W_dec[0]
        return changed

    decoder = own.model.vlm.decoder
    before = decoder(inputs_embeds=emb.inputs_embeds, position_ids=emb.position_ids).last_hidden_state[:, -1]
    handle = decoder.layers[0].register_forward_hook(hook)
    after = decoder(inputs_embeds=emb.inputs_embeds, position_ids=emb.position_ids).last_hidden_state[:, -1]
    handle.remove()
    head, correct = own.model.vlm.model.get_output_embeddings(), torch.tensor(items[0].correct_letters)
    margins = []
    for hidden in (before, after):
        logits = head(hidden)[:, :3]
        wrong = logits.masked_fill(torch.nn.functional.one_hot(correct, 3).bool(), float("-inf"))
        margins.append((logits[range(3), correct] - wrong.logsumexp(dim=1)).mean())
    rows = effects(own, case, codes, target(0), [ABLATE])
    assert rows[0]["delta_margin"] == pytest.approx(float(margins[1] - margins[0]), abs=1e-6)


def test_a_silent_latent_is_not_run_and_its_edit_is_exactly_nothing() -> None:
    own = editor()
    case, codes = case_and_codes(own)
    assert effects(own, case, codes, target(7), [ABLATE, DOUBLE]) == []
    assert not touches(codes, target(7), ABLATE)
    assert torch.count_nonzero(edit(own, codes, target(7), DOUBLE).change) == 0


def test_a_firing_latent_that_the_answer_does_not_read_changes_nothing() -> None:
    own = editor()
    case, codes = case_and_codes(own, noise=torch.ones(N_VISUAL, 4))
    for row in effects(own, case, codes, target(5), [ABLATE, DOUBLE]):
        assert row["n_tokens_edited"] == 4
        assert row["delta_margin"] == 0.0


def test_ablating_and_adding_have_opposite_signs_on_the_planted_direction() -> None:
    own = editor()
    case, codes = case_and_codes(own)
    found = {
        row["operation"]: row for row in effects(own, case, codes, target(0), [ABLATE, DOUBLE, ADD]) if row["counting"]
    }
    assert found["ablate"]["delta_margin"] < -0.1
    assert found["scale:2"]["delta_margin"] > 0.1
    assert found["add:0.5"]["delta_margin"] > 0.1
    assert found["add:0.5"]["mean_norm"] == pytest.approx(0.5 * own.reference.median_norm)


def test_adding_also_reaches_videos_in_which_the_latent_is_silent() -> None:
    own = editor()
    case, codes = case_and_codes(own)
    (row, _) = effects(own, case, codes, target(7), [ADD])
    assert row["operation"] == "add:0.5"
    assert row["n_tokens_edited"] == N_VISUAL


def test_a_set_is_edited_together() -> None:
    own = editor()
    _, codes = case_and_codes(own, noise=torch.ones(N_VISUAL, 4))
    both = edit(own, codes, target(0, 5), ABLATE)
    single = [edit(own, codes, target(latent), ABLATE) for latent in (0, 5)]
    torch.testing.assert_close(both.change, single[0].change + single[1].change)
    torch.testing.assert_close(both.norms, torch.cat([one.norms for one in single], dim=1))


@pytest.mark.parametrize("latents", [(0,), (0, 5)])
def test_every_control_has_the_norms_of_the_edit(latents: tuple[int, ...]) -> None:
    own = editor(scale=0.5)
    _, codes = case_and_codes(own, noise=torch.rand(N_VISUAL, 4, generator=torch.Generator().manual_seed(1)))
    made = edit(own, codes, target(*latents), ABLATE)
    controls = draw_controls(own, target(*latents), 3, seed=0)
    assert [control.family for control in controls] == [*FAMILIES] * 3  # in turns, for rounds of them
    sums = ControlSums.start(target(*latents), [ABLATE], controls)
    for change in sums._changes(made):
        torch.testing.assert_close(change.norm(dim=1), made.change.norm(dim=1))
        assert not torch.allclose(change, made.change)


def test_controls_are_drawn_from_seed_and_target_alone() -> None:
    own = editor()
    first, again = (draw_controls(own, target(0), 2, seed=0) for _ in range(2))
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.directions, two.directions)
    other = draw_controls(own, target(1), 2, seed=0)
    assert not torch.equal(first[0].directions, other[0].directions)


def test_decoder_controls_come_from_other_latents() -> None:
    controls = [control for control in draw_controls(editor(), target(0), 6, seed=0) if control.family == "decoder"]
    sources = [control.source[0] for control in controls]
    assert len(sources) == len(set(sources)) == 6
    assert 0 not in sources
    assert 7 not in sources  # never fires


def test_control_sums_are_means_over_the_counting_items_summed_over_videos() -> None:
    own = editor()
    case, codes = case_and_codes(own)
    controls = draw_controls(own, target(0), 2, seed=0)
    sums = ControlSums.start(target(0), [ABLATE, DOUBLE], controls)
    assert list(sums.sums) == ["scale 1"]  # both operations share their norms
    assert sums.add(own, case, codes) == len(controls)  # one counting item
    once = sums.sums["scale 1"].copy()
    sums.add(own, case, codes)
    rows = sums.rows(n_items=4, n_videos=4)
    # Two of four videos were edited, the other two count as zeros.
    assert [row["delta_margin"] for row in rows] == pytest.approx((once[:, 0] / 2).tolist())
    assert {row["magnitude"] for row in rows} == {"scale 1"}


def test_controls_that_have_not_run_have_no_rows() -> None:
    own = editor()
    case, codes = case_and_codes(own)
    sums = ControlSums.start(target(0), [ABLATE], draw_controls(own, target(0), 4, seed=0))
    assert sums.rows(n_items=1, n_videos=1) == []
    assert sums.add(own, case, codes, slice(0, 6)) == 6
    rows = sums.rows(n_items=1, n_videos=1)
    assert [(row["family"], row["index"]) for row in rows] == [
        (family, index) for index in (0, 1) for family in FAMILIES
    ]
    assert sums.means("scale 1", 1) == [row["delta_margin"] for row in rows]
    whole = ControlSums.start(target(0), [ABLATE], draw_controls(own, target(0), 4, seed=0))
    whole.add(own, case, codes)
    first = whole.rows(n_items=1, n_videos=1)[:6]
    assert [row["delta_margin"] for row in first] == pytest.approx([row["delta_margin"] for row in rows], abs=1e-6)


def test_the_planted_latent_beats_every_control_and_an_idle_one_does_not() -> None:
    own = editor()
    case, codes = case_and_codes(own, noise=torch.rand(N_VISUAL, 4, generator=torch.Generator().manual_seed(1)))
    for latent, beats in ((0, True), (5, False)):
        (effect, _) = effects(own, case, codes, target(latent), [ABLATE])
        sums = ControlSums.start(target(latent), [ABLATE], draw_controls(own, target(latent), 20, seed=0))
        sums.add(own, case, codes)
        sizes = [abs(row["delta_margin"]) for row in sums.rows(n_items=1, n_videos=1)]
        assert (abs(effect["delta_margin"]) > max(sizes)) == beats
