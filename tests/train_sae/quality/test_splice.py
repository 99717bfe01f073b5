"""An SAE's reconstruction in the place of the visual residuals."""

import dataclasses
import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ask.packing import Asked
from collect.errors import UserError
from collect.reading import ActivationStore
from tests.small_run import SAE_NAME, SITE, save_random_sae
from tests.steer.toy import ToyVlm, counting_item, toy_case, toy_sae, visual
from train_sae.quality.config import EvaluateConfig
from train_sae.quality.splice import Scores, evaluate, score, score_letters, summarise, versions


def scored(scale: float) -> Scores:
    """The toy's answer "three of three" with evidence 1, with a reconstruction of `scale` times the residual."""
    vlm = ToyVlm()
    case = toy_case(vlm, visual(torch.ones(4)), (counting_item(), counting_item(question_id=1)))
    x = case.sequences.visual
    return score(Asked.at(vlm, "resid/0"), case, versions(toy_sae(scale), x, x.mean(0)))


def test_a_perfect_reconstruction_changes_nothing_and_an_empty_one_is_zeros() -> None:
    original, sae, zero, mean = scored(1.0).margin
    assert torch.allclose(sae, original)
    # All visual tokens of the toy are alike, so that their mean changes nothing either.
    assert torch.allclose(mean, original)
    assert float(zero[0]) < float(original[0]) - 0.1
    _, sae, zero, _ = scored(0.0).margin
    assert torch.allclose(sae, zero)


def test_half_a_reconstruction_lies_between() -> None:
    for name, falls in (("margin", True), ("loss", False), ("text_loss", False)):
        values = getattr(scored(0.5), name)
        original, sae, zero, _ = values[:, 0].tolist()
        low, high = (zero, original) if falls else (original, zero)
        assert low < sae < high


def test_without_the_video_every_letter_is_alike() -> None:
    scores = scored(1.0)
    # Margin: 0 − log(e⁰ + e⁰). The letters A, B, C and two other words have equal logits: loss log 5.
    assert scores.margin[2, 0] == pytest.approx(-math.log(2), abs=1e-5)
    assert scores.loss[2, 0] == pytest.approx(math.log(5), abs=1e-5)


def test_scores_by_hand() -> None:
    logits = torch.tensor([[[[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 1.0, 4.0]]]])
    mass = torch.tensor([[[0.5, 1.0, 0.25]]])
    scores = score_letters(logits, mass, torch.tensor([[[1.0, 2.0, 6.0]]]), torch.tensor([[[0, 1, 0]]]))
    # −log(p among letters · mass): e²/(e²+e+1) · ½; e³/(e³+2) · 1; e/(2e+e⁴) · ¼, averaged over the orders.
    e = math.e
    losses = [-math.log(e**2 / (e**2 + e + 1) / 2), -math.log(e**3 / (e**3 + 2)), -math.log(e / (2 * e + e**4) / 4)]
    assert float(scores.loss) == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert float(scores.accuracy) == pytest.approx(2 / 3)
    assert float(scores.text_loss) == pytest.approx(3)


def test_recovered_by_hand() -> None:
    def one(loss: list[float], accuracy: list[float]) -> Scores:
        column = torch.tensor(accuracy)[:, None]
        losses = torch.tensor(loss)[:, None]
        return Scores(loss=losses, text_loss=2 * losses, margin=column * 0, accuracy=column)

    # Two videos; original, SAE, zero, mean.
    found = {"a": one([1.0, 1.5, 3.0, 2.0], [1.0, 0.5, 0.0, 1.0]), "b": one([1.0, 1.0, 2.0, 0.0], [1.0, 1.0, 0.0, 1.0])}
    result = summarise(found, seed=0)
    assert (result["n_videos"], result["n_questions"]) == (2, 2)
    assert result["versions"]["zero"]["loss"] == 2.5
    # Loss: zeros cost 2 and 1, of which 1.5 and 1 come back. Accuracy: 1 and 1, of which 0.5 and 1 come back.
    zero = result["recovered"]["zero"]
    assert zero["loss"]["value"] == pytest.approx(2.5 / 3)
    assert zero["accuracy"]["value"] == pytest.approx(0.75)
    assert zero["text_loss"] == zero["loss"]  # twice the loss, lost and recovered alike
    # Drawing video a twice gives 1.5 / 2, b twice 1 / 1.
    assert zero["loss"]["low"] == pytest.approx(0.75)
    assert zero["loss"]["high"] == pytest.approx(1.0)
    # The mean residual costs no loss on average, no margin and no accuracy: nothing is there to be recovered.
    assert all(value == {"value": None, "low": None, "high": None} for value in result["recovered"]["mean"].values())


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_the_command_writes_both_halves(run_folder: Path) -> None:
    path = evaluate(EvaluateConfig(run=run_folder, device="cpu"))
    assert path == run_folder / "sae" / SAE_NAME / "evaluation.json"
    result = read(path)
    # Four of eight videos are held out, each with two counting questions and another one.
    assert (result["spliced"]["n_videos"], result["spliced"]["n_questions"]) == (4, 12)
    assert set(result["spliced"]["versions"]) == {"original", "sae", "zero", "mean"}
    for version in result["spliced"]["versions"].values():
        assert set(version) == {"loss", "text_loss", "margin", "accuracy"}
    assert 0 < result["held_out"]["fvu"] < 1
    assert result["held_out"]["l0"] <= 4
    assert read(evaluate(EvaluateConfig(run=run_folder, device="cpu"))) == result


def test_without_questions_the_model_is_not_needed(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("train_sae.quality.splice.open_asked")
    result = read(evaluate(EvaluateConfig(run=run_folder, questions=0, tokens=30, device="cpu")))
    assert result["spliced"] is None
    assert result["held_out"]["n_tokens"] == 30


def test_a_finished_evaluation_is_left_as_it_is(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = evaluate(EvaluateConfig(run=run_folder, device="cpu"))
    before = path.read_bytes()
    monkeypatch.delattr("train_sae.quality.splice.open_asked")
    monkeypatch.delattr("train_sae.quality.splice.held_out_quality")
    with caplog.at_level(logging.INFO, "train_sae"):
        evaluate(EvaluateConfig(run=run_folder, device="cpu"))
    assert "is finished: nothing to do" in caplog.text
    # Without questions the answers that are there are kept.
    evaluate(EvaluateConfig(run=run_folder, questions=0, device="cpu"))
    assert path.read_bytes() == before


def test_each_half_is_made_again_only_where_it_would_differ(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(evaluate(EvaluateConfig(run=run_folder, device="cpu")))
    fewer = read(evaluate(EvaluateConfig(run=run_folder, questions=0, tokens=30, device="cpu")))
    assert fewer["held_out"]["n_tokens"] == 30
    assert fewer["spliced"] == first["spliced"]
    monkeypatch.delattr("train_sae.quality.splice.held_out_quality")
    other = read(evaluate(EvaluateConfig(run=run_folder, questions=1, tokens=30, device="cpu")))
    assert other["held_out"] == fewer["held_out"]
    assert other["spliced"]["n_questions"] < first["spliced"]["n_questions"]


def test_answers_of_another_sae_are_made_again_and_never_lost(run_folder: Path) -> None:
    path = evaluate(EvaluateConfig(run=run_folder, device="cpu"))
    first = path.read_bytes()
    store = ActivationStore.open(run_folder / "activations")
    save_random_sae(path.parent, store, SITE, extra="another cfg.json")
    with pytest.raises(UserError, match=re.escape(f"{path} has answers to questions, and they are not known to be")):
        evaluate(EvaluateConfig(run=run_folder, questions=0, device="cpu"))
    assert path.read_bytes() == first
    again = read(evaluate(EvaluateConfig(run=run_folder, device="cpu")))
    assert again["made_with"]["inputs"] != json.loads(first)["made_with"]["inputs"]


def test_what_cannot_be_asked_is_said_before_anything_is_computed(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("train_sae.quality.splice.open_asked")
    monkeypatch.delattr("train_sae.quality.splice.held_out_quality")
    monkeypatch.setattr("ask.opened.held_out_ids", lambda _: frozenset())
    with pytest.raises(UserError, match=r"no question about a held-out video .* with --questions 0"):
        evaluate(EvaluateConfig(run=run_folder, device="cpu"))
    monkeypatch.setattr("train_sae.quality.splice.COUNTING_TAGS", ("event counting",))
    with pytest.raises(UserError, match=r"no counting question .* or measure only the activations with --questions 0"):
        evaluate(EvaluateConfig(run=run_folder, device="cpu"))


def test_a_site_that_is_only_part_of_the_residual_stream_is_refused_at_once(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train_sae.quality import splice

    opened = splice.open_sae(run_folder, ActivationStore.open(run_folder / "activations"), None, decoded=True)
    part = dataclasses.replace(opened.sae, metadata={**opened.sae.metadata, "hook_name": "attn_out/0"})
    monkeypatch.setattr(splice, "open_sae", lambda *_, **__: dataclasses.replace(opened, sae=part))
    monkeypatch.delattr(splice, "held_out_quality")
    with pytest.raises(UserError, match=r"reads attn_out/0, .*: measure only the activations with --questions 0"):
        evaluate(EvaluateConfig(run=run_folder, device="cpu"))
