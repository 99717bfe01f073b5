"""The loss of a question's text: which tokens are scored, by which logits, against the model's own forward pass."""

import math
from collections.abc import Callable

import pytest
import torch

from ask.packing import Asked, restrict, run_on, run_to, to_sequences
from ask.text_loss import text_loss, text_targets
from collect.vlm import VideoVlm
from collect.vlm.conformance import clip_of, close
from tests.collect.conftest import tiny_folders, tiny_vlms  # noqa: F401  # fixtures
from tests.collect.tiny_models import BUILDERS
from tests.collect.video_files import noise
from tests.steer.toy import LETTERS, ToyVlm, visual

QUESTIONS = ("How many red balls appear in the video?", "Where is it?", "What\nA. 1\nB. 2\nC. 3")
CORRECT = (2, 0, 1)
CLIP = clip_of([noise(48, 64, seed=i) for i in range(4)])


@pytest.fixture(params=BUILDERS)
def vlm(request: pytest.FixtureRequest, tiny_vlms: Callable[[str], VideoVlm]) -> VideoVlm:  # noqa: F811
    return tiny_vlms(request.param)


def own_loss(vlm: VideoVlm, question: str, answer: int) -> float:
    """Cross-entropy of the text's tokens and of the answer by a plain forward pass of the model over its own inputs."""
    inputs = vlm.processed(CLIP, question)
    ids = inputs["input_ids"][0].tolist()
    text = vlm.family.processor.tokenizer(question, add_special_tokens=False)["input_ids"]
    (start,) = (place for place in range(len(ids)) if ids[place : place + len(text)] == text)
    with torch.no_grad():
        log_p = vlm.model(**inputs).logits[0].double().log_softmax(-1)
    losses = [-float(log_p[start + place - 1, token]) for place, token in enumerate(text)]
    return (sum(losses) - float(log_p[-1, answer])) / (len(text) + 1)


@pytest.mark.parametrize("packed", [True, False])
def test_it_is_the_cross_entropy_of_the_models_own_pass(vlm: VideoVlm, packed: bool) -> None:
    suffixes, prefix = [vlm.suffix(question) for question in QUESTIONS], vlm.prefix(CLIP)
    answers = vlm.answer_ids()[list(CORRECT)]
    expected = torch.tensor([own_loss(vlm, *pair) for pair in zip(QUESTIONS, answers.tolist(), strict=True)])
    for site in ("projector", "resid/0"):
        seq = run_to(vlm, to_sequences(vlm.embed([prefix] * 3, suffixes), packed=packed), [site])[site]
        kept = [0, 2]
        fewer = restrict(seq, kept)
        with torch.no_grad():
            out, some = (run_on(Asked.at(vlm, site), rows, rows.hidden)[0] for rows in (seq, fewer))
            found = text_loss(vlm, out, text_targets(seq, suffixes, vlm.suffix(""), answers))
            targets = text_targets(fewer, [suffixes[number] for number in kept], vlm.suffix(""), answers[kept])
            assert close(found, expected, 1e-4)
            assert close(text_loss(vlm, some, targets), expected[kept], 1e-4)


def test_targets_by_hand() -> None:
    toy = ToyVlm()
    prompts = [torch.tensor([1, 2, 3, 0]), torch.tensor([2, 2, 4, 0])]
    seq = to_sequences(toy.embed([visual(torch.zeros(4))] * 2, prompts), packed=True)
    # The prefix is columns 0 to 4, the questions columns 5 to 8 and 9 to 12. An empty prompt is 2 0: the second
    # question's first token and both last ones are the template's.
    targets = text_targets(seq, prompts, torch.tensor([2, 0]), torch.tensor([1, 0]))
    assert targets.question.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert targets.token.tolist() == [1, 2, 3, 1, 2, 4, 0]
    # Token 1 of the first question follows the prefix; so would that of the second, but its is the template's.
    assert targets.column.tolist() == [4, 5, 6, 8, 9, 10, 12]
    targets = text_targets(seq, prompts, torch.tensor([0]), torch.tensor([1, 0]))
    assert targets.column.tolist() == [4, 5, 6, 8, 4, 9, 10, 12]


def test_a_mean_over_the_tokens_of_each_question() -> None:
    toy = ToyVlm()
    prompts = [torch.tensor([1, 2, 3, 0]), torch.tensor([0, 0, 0, 0])]
    seq = to_sequences(toy.embed([visual(torch.zeros(4))] * 2, prompts), packed=True)
    targets = text_targets(seq, prompts, torch.tensor([0, 0, 0, 0]), LETTERS[:2])
    # Without evidence all five words of the toy are alike; the second question has no text but its letter.
    assert targets.question.tolist() == [0, 0, 0, 0, 1]
    loss = text_loss(toy, run_on(Asked.at(toy, "projector"), seq, seq.hidden)[0], targets)
    assert loss.tolist() == pytest.approx([math.log(5)] * 2)
