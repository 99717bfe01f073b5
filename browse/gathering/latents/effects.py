"""What was found of one latent's edits: per subject, per operation, per question, and what is claimed of it."""

from __future__ import annotations

from typing import Any

from browse.gathering.grouped import Grouped
from browse.gathering.opened import OpenedSae
from browse.gathering.rounding import plain, row
from steer.edits.operations import Operation

N_ITEMS = 20
"""Questions that are listed: those that move most."""
_ITEM = ("item", "video_id", "delta_margin", "delta_expected_count")
_CONTRAST = {
    "n_items": "n_items",
    "n_videos": "n_videos",
    "n_videos_active": "n_videos_active",
    "delta_margin": "delta_margin",
    "low": "delta_margin_low",
    "high": "delta_margin_high",
    "delta_expected_count": "delta_expected_count",
    "other": "delta_margin_other",
    "other_low": "delta_margin_other_low",
    "other_high": "delta_margin_other_high",
    "noncounting": "delta_margin_noncounting",
    "noncounting_low": "delta_margin_noncounting_low",
    "noncounting_high": "delta_margin_noncounting_high",
    "p": "p_value",
}
CLAIM = {
    "operation": "operation",
    "subject": "subject",
    "claim": "claim",
    "rule": "rule",
    "direction": "direction",
    "delta_margin": "delta_margin",
    "low": "delta_margin_low",
    "high": "delta_margin_high",
    "q": "q_value",
    "control_q": "control_q_value",
    "n_videos": "n_videos",
}
"""What is shown of a row of claims.parquet: name there by name in a shard."""
_RESPONSE = {
    "subject": "subject",
    "dose": "dose",
    "delta_margin": "delta_margin",
    "low": "delta_margin_low",
    "high": "delta_margin_high",
    "delta_expected_count": "delta_expected_count",
    "expected_low": "delta_expected_count_low",
    "expected_high": "delta_expected_count_high",
    "shape": "shape",
    "opposed": "opposed",
    "n_videos": "n_videos",
}
_MECHANISM = ("subject", "aspect", "verdict", "rule", "value", "low", "high", "n_videos")
_DOSE = {
    "delta_margin": "delta_margin",
    "low": "delta_margin_low",
    "high": "delta_margin_high",
    "delta_expected_count": "delta_expected_count",
    "subject": "subject",
    "n_videos": "n_videos",
}


class LatentEffects:
    """The steer stage's tables by latent.

    Args:
        sae: the SAE whose latents were edited; nothing is known where none were.
    """

    def __init__(self, sae: OpenedSae) -> None:
        self._effects = sae.effects
        if self._effects is None:
            return
        tables = self._effects.tables
        self._train = Grouped(tables["latent_subjects"], "latent")
        self._targets: dict[int, list[str]] = {}
        for name, target in self._effects.targets.items():
            if not target.is_set:
                self._targets.setdefault(target.latents[0], []).append(name)
        self._of_target = {
            name: Grouped(tables[name], "target") for name in ("target_subjects", "summary", "claims", "mechanisms")
        }
        self._responses = Grouped(sae.mechanisms["doses"], "target")
        items = sae.item_effects
        sweep = items["sweep"]
        self._sweep = Grouped(sweep[sweep["method"] == "exact"], "latent", _ITEM)
        ablated = items["effects"]
        self._held_out = Grouped(ablated[ablated["operation"] == "ablate"], "target", _ITEM)
        named = tables["items"]
        self._items = {
            item: (question, subject if isinstance(subject, str) else None)
            for item, question, subject in zip(named["item"], named["question"], named["subject"], strict=True)
        }

    def of(self, latent: int) -> dict[str, Any]:
        """Effects of one latent, as lists by what they are about; empty ones where nothing is known."""
        if self._effects is None:
            return {"effects": [], "doses": [], "dose_response": [], "items": [], "claims": [], "mechanisms": []}
        targets = self._targets.get(latent, [])
        train = self._train.rows(latent)
        effects = [
            {
                "subject": values["name"],
                "scope": values["scope"],
                "method": values["method"],
                "attribution": plain(values["attribution"]),
                "q": None,
                "train": True,
                **row(values, _CONTRAST),
            }
            for values in train
        ]
        effects.sort(key=lambda effect: (effect["scope"] != "subject", -abs(_size(effect))))
        q_values = {
            (values["target"], values["subject"]): values["q_value"]
            for target in targets
            for values in self._of_target["summary"].rows(target)
            if values["operation"] == "ablate"
        }
        for target in targets:
            for values in self._of_target["target_subjects"].rows(target):
                if values["operation"] == "ablate":
                    q_value = q_values.get((target, values["subject"])) if values["is_chosen"] else None
                    found = {"subject": values["subject"], "scope": "subject", "method": "exact", "attribution": None}
                    effects.append({**found, "q": plain(q_value), "train": False, **row(values, _CONTRAST)})
        return {
            "effects": effects,
            "doses": [dose for target in targets for dose in self._doses(target)],
            "dose_response": [row(values, _RESPONSE) for target in targets for values in self._responses.rows(target)],
            "mechanisms": [
                {name: plain(values[name]) for name in _MECHANISM}
                for target in targets
                for values in self._of_target["mechanisms"].rows(target)
            ],
            "items": self._listed(latent, targets),
            "claims": [
                {**row(values, CLAIM), "text": f"{values['operation']}, {values['subject']}: {values['claim']}"}
                for target in targets
                for values in self._of_target["claims"].rows(target)
            ],
        }

    def _doses(self, target: str) -> list[dict[str, Any]]:
        doses: list[dict[str, Any]] = []
        for values in self._of_target["summary"].rows(target):
            operation = Operation.parse(str(values["operation"]))
            band = plain(values["control_max"])
            doses.append(
                {
                    "operation": operation.kind,
                    "strength": plain(operation.strength),
                    "control_low": None if band is None else -band,
                    "control_high": band,
                    **row(values, _DOSE),
                }
            )
        return sorted(doses, key=lambda dose: (dose["subject"], dose["operation"], dose["strength"]))

    def _listed(self, latent: int, targets: list[str]) -> list[dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}
        for values in self._sweep.rows(latent):
            rows[values["item"]] = {**values, "held_out": False}
        for target in targets:
            for values in self._held_out.rows(target):
                rows[values["item"]] = {**values, "held_out": True}
        ordered = sorted(rows.values(), key=lambda values: (-abs(values["delta_margin"]), values["item"]))
        return [
            {
                "item": values["item"],
                "video": values["video_id"],
                "question": self._items[values["item"]][0],
                "subject": self._items[values["item"]][1],
                "delta_margin": plain(values["delta_margin"]),
                "delta_expected_count": plain(values["delta_expected_count"]),
                "held_out": values["held_out"],
            }
            for values in ordered[:N_ITEMS]
            if values["item"] in self._items
        ]


def _size(effect: dict[str, Any]) -> float:
    size = effect["delta_margin"]
    return float(size if size is not None else effect["attribution"] or 0.0)
