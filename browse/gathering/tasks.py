"""The shard `tasks`: every question over its videos, how well it is answered, and what edits are said to do to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ask.inference import pooled_interval
from ask.questions import CHANCE
from browse.gathering.grouped import records
from browse.gathering.latents.effects import CLAIM
from browse.gathering.opened import OpenedSae
from browse.gathering.rounding import plain, rounded, row
from browse.gathering.videos import predicted
from browse.shards import Shard, objects


def tasks_shard(saes: Mapping[str, OpenedSae]) -> Shard:
    """The shard `tasks`.

    Args:
        saes: SAEs by their names in shards; the questions are those of all of them.
    """
    items: dict[str, Mapping[str, Any]] = {}
    claims: list[dict[str, Any]] = []
    for key, sae in saes.items():
        effects = sae.effects
        if effects is None:
            continue
        for item in records(effects.tables["items"]):
            items.setdefault(str(item["item"]), item)
        for claim in records(effects.tables["claims"]):
            target = effects.targets[str(claim["target"])]
            claims.append(
                {
                    "sae": key,
                    "target": target.id,
                    "latent": target.latents[0] if not target.is_set else None,
                    "latents": list(target.latents),
                    **row(claim, CLAIM),
                }
            )
    by_task: dict[tuple[bool, str, str], list[Mapping[str, Any]]] = {}
    for item in items.values():
        by_task.setdefault((not item["counting"], str(item["question"]), str(item["kind"])), []).append(item)
    tasks = [_task(*key[1:], by_task[key], claims) for key in sorted(by_task)]
    return Shard(columns={"json": objects(tasks)})


def _task(question: str, kind: str, items: list[Mapping[str, Any]], claims: list[dict[str, Any]]) -> dict[str, Any]:
    subject = items[0]["subject"] if isinstance(items[0]["subject"], str) else None
    accuracy = np.array([item["accuracy"] for item in items], dtype=np.float64)
    videos = [str(item["video_id"]) for item in items]
    low, high = pooled_interval(accuracy, videos, np.random.default_rng(0))
    answers = Counter(str(item["options"][item["answer_id"]]) for item in items)
    return {
        "task": question,
        "kind": kind,
        "subject": subject,
        "counting": bool(items[0]["counting"]),
        "n_videos": len(set(videos)),
        "accuracy": rounded(accuracy.mean()),
        "accuracy_low": rounded(low),
        "accuracy_high": rounded(high),
        "baselines": {
            "chance": rounded(CHANCE),
            "question_only": rounded(np.mean([item["question_only"] for item in items])),
            "answer_frequency": rounded(max(answers.values()) / len(items)),
        },
        "items": [
            {
                "item": item["item"],
                "video": item["video_id"],
                "held_out": bool(item["held_out"]),
                "options": [str(option) for option in item["options"]],
                "answer": int(item["answer_id"]),
                "predicted": predicted(item),
                "right": plain(item["accuracy"]),
                "margin": plain(item["margin"]),
                "expected_count": plain(item["expected_count"]),
            }
            for item in sorted(items, key=lambda item: (str(item["video_id"]), int(item["question_id"])))
        ],
        "latents": [claim for claim in claims if subject is not None and claim["subject"] == subject],
    }
