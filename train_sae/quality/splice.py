"""The `evaluate` command: an SAE on held-out videos, by itself and spliced into its model.

Spliced means that the residual of every visual token at the SAE's site is replaced by its reconstruction, and the model
continues from there to its answer. What the answers lose shows how much of what the model uses is kept by the
reconstruction. It is compared with two replacements that keep nothing of the video: zeros, and the mean residual of the
store.

    RUN/sae/NAME/evaluation.json

Losses are of the correct letter after the prompt, and of all tokens of the question's text and the letter.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from ask.answers import hits, margins
from ask.cases import Case, Cases
from ask.opened import DrawnQuestions, Wanted, draw_questions, open_asked, open_whole_store, stages_of
from ask.packing import Asked, read_letters, run_on
from ask.questions import N_OPTIONS, manifest_hash
from ask.text_loss import text_loss, text_targets
from collect.artefact.folder import read_object, remove_orphans, write_json
from collect.artefact.lock import writing
from collect.data.counting import COUNTING_TAGS
from collect.errors import UserError
from collect.printable import printable
from collect.process.device import resolve_device
from collect.reading import ActivationStore
from train_sae.opened import OpenedSae, open_sae
from train_sae.quality.config import EvaluateConfig
from train_sae.quality.evaluate import held_out_quality
from train_sae.sae import Sae

logger = logging.getLogger(__name__)

EVALUATION_NAME = "evaluation.json"
VERSIONS = ("original", "sae", "zero", "mean")
N_BOOTSTRAP = 1000
_OTHERWISE = "measure only the activations with --questions 0"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Answers to the questions about one video under each version, averaged over the orders of the options."""

    loss: Float[Tensor, "version item"]
    text_loss: Float[Tensor, "version item"]
    margin: Float[Tensor, "version item"]
    accuracy: Float[Tensor, "version item"]


def evaluate(config: EvaluateConfig) -> Path:
    """Evaluate an SAE on held-out videos and return the file with the numbers.

    The file says with what each half was made. A half that is there already, made with the same, is kept; so is that
    with questions where none are asked.

    Raises:
        UserError: run, SAE, model or questions are missing or do not belong together, what is there would be lost, or
            another process is writing the SAE's folder.
    """
    store = ActivationStore.open(config.run / "activations")
    opened = open_sae(config.run, store, config.sae, decoded=True)
    folder = config.run / "sae" / opened.name  # also for an SAE that lies elsewhere, because nothing is written there
    path = folder / EVALUATION_NAME
    with writing(folder):
        remove_orphans(folder)
        questions = _questions(config, opened) if config.questions else None
        inputs = {**opened.hashes(), "activations": store.fingerprint, "site": opened.sae.site}
        before, made_with = _earlier(path, inputs, config)
        halves = {name: before.get(name) for name in ("held_out", "spliced")}
        result: dict[str, Any] = {"sae": opened.name, **halves, "made_with": made_with}
        how = {"tokens": config.tokens, "seed": config.seed}
        is_measured = made_with.get("held_out") == how
        if not is_measured:
            sae = opened.sae.to(resolve_device(config.device))
            quality, coherence = held_out_quality(store, sae, config.tokens, config.seed)
            result["held_out"] = {**quality.to_json(), **dataclasses.asdict(coherence)}
            made_with["held_out"] = how
            write_json(path, result)
            logger.info("%s: held-out FVU %.4f, L0 %.1f", folder, quality.fvu, quality.l0)
        how = {"seed": config.seed, "items": None if questions is None else manifest_hash(questions.items)}
        is_asked = questions is None or made_with.get("spliced") == how
        if questions is not None and not is_asked:
            result["spliced"] = spliced(config, opened, store, questions)
            made_with["spliced"] = how
            write_json(path, result)
            shown = result["spliced"]["recovered"]["zero"]
            words = [f"{name} {found['value']:.3f}" for name, found in shown.items() if found["value"] is not None]
            logger.info(
                "spliced in, recovered against zeros: %s", ", ".join(words) or "nothing was lost to be recovered"
            )
    if is_measured and is_asked:
        logger.info("%s is finished: nothing to do", printable(path, 4096))
    return path


def _questions(config: EvaluateConfig, opened: OpenedSae) -> DrawnQuestions:
    """The questions about held-out videos, after everything that can be checked without the model.

    Raises:
        UserError: nothing can be spliced in there, or there are none.
    """
    store = open_whole_store(config.run, f", or {_OTHERWISE}")
    site = opened.sae.site
    if site.partition("/")[0] not in ("projector", "resid_pre", "resid"):
        raise UserError(
            f"{opened.folder} reads {site}, which is not the whole residual stream, so that its reconstruction cannot "
            f"be put in there: {_OTHERWISE}, or name another SAE with --sae."
        )
    wanted = Wanted(
        tasks=COUNTING_TAGS,
        items=config.questions,
        noncounting_items=config.questions,
        seed=config.seed,
        data=config.data,
        otherwise=_OTHERWISE,
    )
    found = draw_questions(config.run, store, wanted, stages_of(config.run, opened.name), own=None)
    items = tuple(item for item in found.items if item.held_out)
    if not items:
        raise UserError(
            f"{found.dataset.folder} has no question about a held-out video of {store.folder}: collect more videos, or "
            f"{_OTHERWISE}."
        )
    return dataclasses.replace(found, items=items)


def _earlier(path: Path, inputs: Mapping[str, str], config: EvaluateConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is there already of the same SAE and activations, and what its halves were made with; nothing if none is.

    Raises:
        UserError: there are answers to questions of another SAE or store, or nobody knows of which, and none would take
            their place.
    """
    if not path.exists():
        return {}, {"inputs": dict(inputs)}
    try:
        before = read_object(path, "it is made again")
    except UserError as error:
        logger.warning("%s", error)
        return {}, {"inputs": dict(inputs)}
    made_with = before.get("made_with")
    if isinstance(made_with, dict) and cast("dict[str, Any]", made_with).get("inputs") == dict(inputs):
        return before, dict(cast("dict[str, Any]", made_with))
    if before.get("spliced") is not None and not config.questions:
        raise UserError(
            f"{printable(path, 4096)} has answers to questions, and they are not known to be those of this SAE and "
            "these activations: leave out --questions 0 to ask again, or move the file away."
        )
    return {}, {"inputs": dict(inputs)}


def spliced(
    config: EvaluateConfig, opened: OpenedSae, store: ActivationStore, questions: DrawnQuestions
) -> dict[str, Any]:
    """Answer the questions about held-out videos with every version of the visual residuals.

    Raises:
        UserError: the model is missing or another one, or a video is.
    """
    asked = open_asked(config.run, store, questions, config.device)
    vlm, sae = asked.vlm, opened.sae.to(asked.vlm.device)
    cases = Cases(asked, sae.site)
    mean = torch.from_numpy(store.moments(sae.site).mean).float().to(vlm.device)
    found: dict[str, Scores] = {}
    with tqdm(cases.clips.in_turn(cases.videos), total=len(cases.videos), desc="splice", unit="video") as progress:
        for video_id in progress:
            case = cases.build(video_id)
            replaced = versions(sae, case.sequences.visual, mean)
            found[video_id] = score(cases.model, case, replaced)
    return summarise(found, config.seed)


def versions(
    sae: Sae, x: Float[Tensor, "visual d_model"], mean: Float[Tensor, " d_model"]
) -> Float[Tensor, "version visual d_model"]:
    """The visual residuals themselves, their reconstruction, zeros, and the mean residual at every token."""
    x_hat = sae.reconstruct(x.float())
    return torch.stack([x.float(), x_hat, torch.zeros_like(x_hat), mean.expand_as(x_hat)])


def score(
    model: Asked,
    case: Case,
    replaced: Float[Tensor, "version visual d_model"],
) -> Scores:
    """Answer a video's questions once per version of its visual residuals.

    Args:
        model: the model, at the site where the residuals were read.
        case: the video and its questions.
        replaced: the residuals at the visual tokens in each version.
    """
    vlm = model.vlm
    seq, orders = case.sequences, (-1, N_OPTIONS)
    suffixes = [vlm.suffix(text) for item in case.items for text in item.prompts]
    targets = text_targets(seq, suffixes, vlm.suffix(""), model.letters[case.correct.flatten()])
    logits, mass, losses = list[Tensor](), list[Tensor](), list[Tensor]()
    with torch.no_grad():
        for rows in replaced:  # one at a time: a packed row holds every question about the video
            put = rows.to(seq.hidden.dtype).expand(len(seq.hidden), -1, -1)
            out = run_on(model, seq, seq.hidden.index_copy(1, seq.visual_positions, put))
            some_logits, some_mass = read_letters(model, seq, out)
            logits.append(some_logits[0].unflatten(0, orders))
            mass.append(some_mass[0].unflatten(0, orders))
            losses.append(text_loss(vlm, out[0], targets).unflatten(0, orders))
    return score_letters(
        torch.stack(logits), torch.stack(mass), torch.stack(losses), case.correct.expand(len(replaced), -1, -1)
    )


def score_letters(
    logits: Float[Tensor, "version item order letter"],
    mass: Float[Tensor, "version item order"],
    text_losses: Float[Tensor, "version item order"],
    correct: Int[Tensor, "version item order"],
) -> Scores:
    """Loss of the correct letter as the next token, margin and accuracy, each averaged over the orders.

    Args:
        logits: logits of the letters.
        mass: probability of the letters together among the whole vocabulary.
        text_losses: losses of the questions' text.
        correct: position of the correct letter.
    """
    among_letters = torch.log_softmax(logits, dim=-1).gather(-1, correct[..., None])[..., 0]
    loss = -(among_letters + mass.clamp(min=torch.finfo(mass.dtype).tiny).log())
    return Scores(
        loss=loss.mean(-1),
        text_loss=text_losses.mean(-1),
        margin=margins(logits, correct).mean(-1),
        accuracy=hits(logits, correct).mean(-1),
    )


def summarise(found: Mapping[str, Scores], seed: int) -> dict[str, Any]:
    """Means of each version over videos, and how much the SAE recovers of what zeros and the mean residual lose.

    Recovered is (replaced − SAE) / (replaced − original) of the means over videos; its 95 % interval resamples videos.
    It is null if the replacement loses nothing, since then there is nothing to recover; draws in which it loses nothing
    are left out of the interval.

    Args:
        found: scores by video.
        seed: seed of the bootstrap.
    """
    names = [field.name for field in dataclasses.fields(Scores)]
    by_video = {
        name: np.stack([getattr(scores, name).double().mean(1).cpu().numpy() for scores in found.values()])
        for name in names
    }
    n_items = sum(scores.loss.shape[1] for scores in found.values())
    draws = np.random.default_rng(seed).integers(0, len(found), (N_BOOTSTRAP, len(found)))
    recovered = {
        baseline: {
            name: _recovered(values, VERSIONS.index(baseline), draws, falls="loss" not in name)
            for name, values in by_video.items()
        }
        for baseline in ("zero", "mean")
    }
    means = {
        version: {name: float(values[:, number].mean()) for name, values in by_video.items()}
        for number, version in enumerate(VERSIONS)
    }
    return {"n_videos": len(found), "n_questions": n_items, "versions": means, "recovered": recovered}


def _recovered(values: np.ndarray, baseline: int, draws: np.ndarray, *, falls: bool) -> dict[str, float | None]:
    """Share that is recovered, from scores [video, version]; `falls` if a worse answer has a lower score."""
    sign = -1 if falls else 1
    lost = sign * (values[:, baseline] - values[:, VERSIONS.index("original")])
    left = sign * (values[:, baseline] - values[:, VERSIONS.index("sae")])
    if lost.mean() <= 0:
        return {"value": None, "low": None, "high": None}
    below = lost[draws].mean(1)
    ratios = left[draws].mean(1)[below > 0] / below[below > 0]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return {"value": float(left.mean() / lost.mean()), "low": float(low), "high": float(high)}
