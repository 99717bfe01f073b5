"""Packed questions give the answers that they give one by one, on the toy and on a real (untrained) PerceptionLM."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ask.packing import Asked, letter_logits, packing_agrees, restrict, run_to, to_sequences, visible
from ask.questions import prompt
from collect.video.decode import Clip
from collect.vlm import Embedded, VideoVlm, load_vlm
from demo.vlm.architecture import save_untrained
from tests.steer.toy import LETTERS, ToyVlm, visual


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> VideoVlm:
    return load_vlm(str(save_untrained(tmp_path_factory.mktemp("vlm"))), device="cpu")


@pytest.fixture(scope="module")
def emb(vlm: VideoVlm) -> Embedded:
    """Three questions of different lengths about one clip."""
    frames = np.random.default_rng(0).integers(0, 256, size=(2, 40, 40, 3), dtype=np.uint8)
    ids = np.arange(2, dtype=np.int64)
    clip = Clip(
        video_id="v", path=Path("v"), frames=frames, times_s=ids / 2.0, frame_ids=ids, frame_rate=2.0, n_frames=2
    )
    texts = [
        prompt("How many red balls appear in the video?", ("1", "2", "3")),
        prompt("Where is the red ball hidden at the end of the video?", ("left", "middle", "right")),
        "How many",
    ]
    prefix = vlm.prefix(clip)
    return vlm.embed([prefix] * 3, [vlm.suffix(text) for text in texts])


def test_a_token_sees_the_prefix_and_its_own_question() -> None:
    # prefix p p, questions 0 0 and 1
    expected = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert visible(torch.tensor([-1, -1, 0, 0, 1])).int().tolist() == expected


def test_packing_lays_questions_behind_one_prefix() -> None:
    toy = ToyVlm()
    seq = to_sequences(toy.embed([visual(torch.zeros(4))] * 2, [torch.tensor([1, 2, 3, 0])] * 2), packed=True)
    # 1 head + 4 visual tokens, then twice 4 tokens with the positions 5 to 8
    assert seq.question.tolist() == [[-1] * 5 + [0] * 4 + [1] * 4]
    assert seq.position_ids.tolist() == [[*range(9), *range(5, 9)]]
    assert seq.last.tolist() == [8, 12]


@pytest.mark.parametrize("site", ["projector", "resid/0", "resid_pre/1", "resid/1"])
@pytest.mark.parametrize("packed", [True, False])
def test_resuming_gives_the_logits_of_the_whole_model(vlm: VideoVlm, emb: Embedded, site: str, packed: bool) -> None:
    seq = run_to(vlm, to_sequences(emb, packed=packed), [site])[site]
    letters = vlm.answer_ids()
    with torch.no_grad():
        got, mass = letter_logits(Asked(vlm=vlm, site=site, letters=letters), seq, seq.hidden)
        whole = vlm.model(inputs_embeds=emb.inputs_embeds, attention_mask=emb.attention_mask.long()).logits
    expected = whole[torch.arange(3), emb.last]
    torch.testing.assert_close(got[0], expected[:, letters], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mass[0], expected.softmax(dim=1)[:, letters].sum(dim=1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("packed", [True, False])
def test_edited_copies_do_not_mix(vlm: VideoVlm, emb: Embedded, packed: bool) -> None:
    seq = run_to(vlm, to_sequences(emb, packed=packed), ["resid/0"])["resid/0"]
    other = seq.hidden.index_fill(1, seq.visual_positions, 0.0)
    letters = vlm.answer_ids()
    with torch.no_grad():
        both, _ = letter_logits(Asked(vlm=vlm, site="resid/0", letters=letters), seq, torch.cat([seq.hidden, other]))
        single = [
            letter_logits(Asked(vlm=vlm, site="resid/0", letters=letters), seq, hidden)[0][0]
            for hidden in (seq.hidden, other)
        ]
    torch.testing.assert_close(both, torch.stack(single), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(single[0], single[1], atol=1e-3)


@pytest.mark.parametrize("packed", [True, False])
def test_restricting_to_some_questions_keeps_their_logits(vlm: VideoVlm, emb: Embedded, packed: bool) -> None:
    seq = run_to(vlm, to_sequences(emb, packed=packed), ["resid/0"])["resid/0"]
    fewer = restrict(seq, [0, 2])
    letters = vlm.answer_ids()
    with torch.no_grad():
        all_logits, _ = letter_logits(Asked(vlm=vlm, site="resid/0", letters=letters), seq, seq.hidden)
        some_logits, _ = letter_logits(Asked(vlm=vlm, site="resid/0", letters=letters), fewer, fewer.hidden)
    torch.testing.assert_close(some_logits, all_logits[:, [0, 2]], atol=1e-5, rtol=1e-4)
    if packed:
        assert fewer.hidden.shape[1] < seq.hidden.shape[1]
    torch.testing.assert_close(fewer.visual, seq.visual)


def test_the_check_accepts_a_model_that_packs_and_finds_one_that_overlooks_the_mask(
    vlm: VideoVlm, emb: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert packing_agrees(Asked(vlm=vlm, site="resid/0", letters=vlm.answer_ids()), emb)
    toy = ToyVlm()
    prompts = [torch.tensor([1, 2, 3, 0]), torch.tensor([3, 1, 2, 0])]
    toy_emb = toy.embed([visual(torch.ones(4))] * 2, prompts)
    # Each question's last token holds numbers and no evidence; seeing another question's tokens dilutes the evidence.
    assert packing_agrees(Asked(vlm=toy, site="resid/0", letters=LETTERS), toy_emb)
    decoder = toy.decoder

    def blind(inputs_embeds: torch.Tensor, position_ids: torch.Tensor, **_: object) -> object:
        return type(decoder).forward(decoder, inputs_embeds, position_ids)

    monkeypatch.setattr(decoder, "forward", blind)
    assert not packing_agrees(Asked(vlm=toy, site="resid/0", letters=LETTERS), toy_emb)


def test_padding_is_never_read() -> None:
    toy = ToyVlm()
    emb = toy.embed([visual(torch.ones(4))] * 2, [torch.tensor([1, 2, 3, 0])] * 2)
    padded = dataclasses.replace(
        emb,
        inputs_embeds=torch.cat([emb.inputs_embeds, torch.full((2, 3, 8), 1e6)], dim=1),
        attention_mask=torch.cat([emb.attention_mask, torch.zeros(2, 3, dtype=torch.bool)], dim=1),
        position_ids=torch.arange(12).repeat(2, 1),
    )
    for packed in (True, False):
        seq, wide = to_sequences(emb, packed=packed), to_sequences(padded, packed=packed)
        expected = letter_logits(Asked(vlm=toy, site="projector", letters=LETTERS), seq, seq.hidden)[0]
        got = letter_logits(Asked(vlm=toy, site="projector", letters=LETTERS), wide, wide.hidden)[0]
        torch.testing.assert_close(got, expected)
