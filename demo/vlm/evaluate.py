"""Held-out accuracy of the demo model on decoded MP4 files: `python -m demo.vlm.evaluate --model FOLDER --data DATA`.

The files come from a world seed that training never used, and are treated like any user's videos: decoded, preprocessed
by the model's own processor, asked through its chat template in all three cyclic orders of the options.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ask.baselines import answer_frequency, question_only_answers, question_only_score
from ask.cases import Clips, embed_items
from ask.packing import Asked, letter_logits, run_to
from ask.questions import N_OPTIONS, Item, items_of
from collect.artefact.folder import write_atomic
from collect.data.counting import COUNTING_TAGS
from collect.data.perception_test import Video, load_dataset
from collect.video.sampling import FrameSampling
from collect.vlm import load_vlm
from demo.world.generate import WorldConfig, generate
from demo.world.questions import KINDS, NONCOUNTING_KINDS
from demo.world.questions import items as scene_items
from demo.world.scene import SAMPLES
from demo.world.script import draw_scene

log = logging.getLogger("demo.vlm.evaluate")
FIRST_SITE = "projector"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Which model is asked about which videos."""

    model: Path
    data: Path
    """Made if it is not there."""
    out: Path | None = None
    """JSON file for the numbers."""
    n_videos: int = 240
    seed: int = 2000
    """World seed; training uses another."""
    workers: int | None = None
    """Processes that make videos; by default as many as processors and memory allow."""


def kind_of(video: Video, question_id: int, seed: int) -> str:
    """The demo world's own name of a question's kind (finer than its tag)."""
    index = int(video.video_id.removeprefix("video_"))
    return scene_items(draw_scene(seed, index))[question_id].kind


def accuracies(model: Path, data: Path, seed: int) -> dict[str, dict[str, float]]:
    """Per kind: accuracy over all option orders, questions asked, and the baselines that see no video.

    `question_only` learns the most frequent answer of each question and option set on the split "train" and is scored
    on the split "valid"; `answer_frequency` is the share of the commonest answer of each question text.
    """
    import torch

    dataset = load_dataset(data)
    vlm = load_vlm(str(model))
    held_out = {video.video_id for video in dataset.videos if video.split == "valid"}
    everything = items_of(dataset, COUNTING_TAGS, held_out, {video.video_id for video in dataset.videos})
    learned = question_only_answers(item for item in everything if not item.held_out)
    by_video: dict[str, list[Item]] = defaultdict(list)
    for item in everything:
        by_video[item.video_id].append(item)
    rows: dict[str, list[tuple[float, Item]]] = defaultdict(list)
    asked = Asked.at(vlm, FIRST_SITE)
    clips = Clips(vlm, dataset.video, FrameSampling(n=SAMPLES))
    names = [video.video_id for video in dataset.videos]
    for video_id in tqdm(clips.in_turn(names), total=len(names), unit="video", desc="evaluate"):
        own = by_video[video_id]
        questions = embed_items(vlm, clips[video_id], own, packed=True)
        seq = run_to(vlm, questions, [FIRST_SITE])[FIRST_SITE]
        with torch.no_grad():
            logits, _ = letter_logits(asked, seq, seq.hidden)
        chosen = logits[0].unflatten(0, (-1, N_OPTIONS)).argmax(-1).tolist()
        for item, letter_per_order in zip(own, chosen, strict=True):
            hits = np.mean([a == b for a, b in zip(letter_per_order, item.correct_letters, strict=True)])
            rows[kind_of(dataset.video(video_id), item.question_id, seed)].append((float(hits), item))
    return {kind: _row(rows[kind], learned) for kind in KINDS if kind in rows}


def _row(results: Sequence[tuple[float, Item]], learned: Mapping[tuple[str, frozenset[str]], str]) -> dict[str, float]:
    unseen = [item for _, item in results if item.held_out]
    return {
        "accuracy": float(np.mean([hits for hits, _ in results])),
        "n_questions": len(results),
        "chance": 1 / N_OPTIONS,
        "answer_frequency": answer_frequency(item for _, item in results),
        "question_only": float(np.mean([question_only_score(item, learned) for item in unseen])) if unseen else 1 / 3,
    }


def summary(table: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The three figures the demo model is judged by: object counting, mean of the counting kinds, mean of controls."""

    def mean(kinds: Sequence[str]) -> float:
        return float(np.mean([table[k]["accuracy"] for k in kinds if k in table]))

    return {
        "object_counting": mean([k for k, (tag, _, _) in KINDS.items() if tag == "object counting"]),
        "counting_kinds": mean([k for k, (tag, _, _) in KINDS.items() if tag in COUNTING_TAGS]),
        "control_kinds": mean(NONCOUNTING_KINDS),
    }


def main() -> None:
    """Command line."""
    import tyro

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(EvaluateConfig)
    generate(config.data, WorldConfig(seed=config.seed, n_videos=config.n_videos), config.workers)
    table = accuracies(config.model, config.data, config.seed)
    result = {"seed": config.seed, "n_videos": config.n_videos, "kinds": table, "summary": summary(table)}
    log.info(json.dumps(result, indent=1))
    if config.out is not None:
        write_atomic(config.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
