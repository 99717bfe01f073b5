"""A run with every stage finished, its tables written by hand on top of real activations and a random SAE."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from PIL import Image

from ask.config import ProfileConfig
from ask.tables import BASELINES, ITEMS, PROFILE
from collect.artefact.config_json import write_config
from collect.artefact.folder import write_atomic, write_table
from collect.artefact.seal import seal_object
from collect.artefact.stage import write_summary
from collect.reading import ActivationStore
from features.catalogue import ASSOCIATIONS, CATALOGUE, EXEMPLARS
from features.config import FeaturesConfig
from features.encoding import encode_store
from features.pictures.media import jpeg
from steer.config import SteerConfig
from steer.mechanism.tables import MECHANISM_TABLES, MECHANISMS
from steer.tables import (
    CLAIMS,
    CONTROLS,
    DISSOCIATIONS,
    EFFECTS,
    LATENT_SUBJECTS,
    SCREEN,
    SCREENS,
    SUMMARY,
    TARGET_SUBJECTS,
    TARGETS,
)
from tests.small_run import D_SAE, SAE_NAME, SITE
from tests.steer.effect_rows import (
    OTHER_SUBJECT,
    SUBJECT,
    claimed,
    control_rows,
    effect_row,
    latent_subject_rows,
    row,
    screens_rows,
    target,
)
from train_sae.config import TrainConfig
from train_sae.sae import load_sae

BALL, CUP, UNLABELLED = 3, 5, 7
BALL_LABEL = "red <ball> & co"
"""A label that must be escaped."""


def catalogue_row(latent: int, **values: Any) -> dict[str, Any]:
    defaults = {"firing_rate": 0.02, "max_activation": 2.0, "mean_active": 1.0, "decoder_norm": 1.0}
    nothing = dict.fromkeys(name for name in CATALOGUE.names if name.startswith(("top_", "runner_up_")))
    return row(CATALOGUE, **{"latent": latent, **nothing, **defaults, **values})


def labelled_row(latent: int, label: str, auroc: float, **values: Any) -> dict[str, Any]:
    """A latent whose label, an object, holds."""
    return catalogue_row(
        latent,
        **{
            "labelled": True,
            "top_label": label,
            "top_label_kind": "object",
            "top_label_level": "token",
            "top_auroc": auroc,
            "top_within_video_auroc": auroc - 0.02,
            "top_within_low": auroc - 0.05,
            "top_q_value": 0.004,
            "top_control_auroc_p95": 0.7,
            **values,
        },
    )


def association_row(latent: int, label: str, auroc: float, *, holds: bool = True, **values: Any) -> dict[str, Any]:
    defaults = {
        "kind": "object",
        "level": "token",
        "split": "held_out",
        "auroc_low": auroc - 0.04,
        "auroc_high": auroc + 0.02,
        "within_video_auroc": auroc - 0.02,
        "within_low": auroc - 0.05,
        "within_high": auroc + 0.01,
        "ap": 0.6,
        "base_rate": 0.1,
        "f1": 0.5,
        "q_value": 0.004,
        "control_auroc_p95": 0.7,
        "control_auroc_best": 0.75,
        "hidden_share": 0.1,
    }
    return row(ASSOCIATIONS, latent=latent, label=label, auroc=auroc, holds=holds, **(defaults | values))


def profile_rows() -> list[dict[str, Any]]:
    shares = {"projector": 1.0, "resid/0": 0.8, "resid/1": 0.1}
    return [
        row(
            PROFILE,
            site=site,
            depth=depth,
            kind=kind,
            counting=kind != "all non-counting",
            n_items=4,
            n_videos=4,
            fall=3 * share,
            fall_low=3 * share - 0.2,
            fall_high=3 * share + 0.2,
            fall_share=share,
        )
        for kind in ("all counting", "all non-counting", "object counting", "action counting")
        for depth, (site, share) in enumerate(shares.items())
    ]


def item_rows() -> list[dict[str, Any]]:
    kinds = ("object counting", "action counting", "colour")
    return [
        row(
            ITEMS,
            item=f"video_{video}/{place}",
            video_id=f"video_{video}",
            question_id=place,
            kind=kind,
            counting=kind != "colour",
            subject=None if kind == "colour" else kind.partition(" ")[0],
            held_out=video >= 4,
            options=["1", "2", "3"],
            values=[1.0, 2.0, 3.0],
            accuracy=1.0 if video != 7 or place else 1 / 3,
            margin=1.0,
        )
        for video in range(8)
        for place, kind in enumerate(kinds)
    ]


def mechanism_rows() -> list[dict[str, Any]]:
    """What is said of one latent, and of its subject."""
    said = [
        (str(BALL), "necessity", "necessary", -0.6),
        (str(BALL), "sufficiency", "part of a conjunction", 0.0),
        (None, "counter", "none found", 0.01),
        (None, "set", "more than half destroyed by 2 latents", 0.85),
    ]
    return [
        row(
            MECHANISMS,
            target=name,
            subject=SUBJECT,
            aspect=aspect,
            verdict=verdict,
            rule=f"rule of {aspect}",
            value=value,
            low=value - 0.1,
            high=value + 0.1,
            n_videos=4,
        )
        for name, aspect, verdict, value in said
    ]


def baseline_rows() -> list[dict[str, Any]]:
    scores = {
        "all counting": 0.92,
        "all non-counting": 1.0,
        "object counting": 0.83,
        "action counting": 1.0,
        "colour": 1.0,
    }
    return [
        row(
            BASELINES,
            kind=kind,
            counting=kind not in ("all non-counting", "colour"),
            split="held_out",
            n_items=4,
            n_videos=4,
            chance=1 / 3,
            answer_frequency=0.5,
            question_only=0.4,
            accuracy=score,
            accuracy_low=score - 0.1,
            accuracy_high=min(score + 0.1, 1.0),
            best_baseline=0.5,
            margin=1.0,
        )
        for kind, score in scores.items()
    ]


def tables() -> dict[str, tuple[pa.Schema, list[dict[str, Any]]]]:
    """Rows of every table by its path below the run; a test may change them before it writes them."""
    features, steer = f"features/{SAE_NAME}", f"steer/{SAE_NAME}"
    latents = [catalogue_row(latent) for latent in range(D_SAE)]
    latents[BALL] = labelled_row(BALL, BALL_LABEL, 0.97)
    latents[CUP] = labelled_row(CUP, "cup", 0.91)
    effects = [
        effect_row(str(BALL), "ablate", -0.5),
        effect_row(str(BALL), "scale:2", 0.4),
        effect_row(str(UNLABELLED), "ablate", 0.1),
        effect_row(str(UNLABELLED), "scale:2", -0.1),
        effect_row("set", "ablate", -1.5),
        effect_row("set", "scale:2", 0.9),
    ]
    return {
        "profile/profile.parquet": (PROFILE, profile_rows()),
        f"{features}/catalogue.parquet": (CATALOGUE, latents),
        f"{features}/associations.parquet": (
            ASSOCIATIONS,
            [association_row(BALL, BALL_LABEL, 0.97), association_row(CUP, "cup", 0.91)],
        ),
        f"{features}/exemplars.parquet": (
            EXEMPLARS,
            [
                row(EXEMPLARS, latent=latent, rank=0, video_id="video_5", split="held_out", activation=1.5, media=media)
                for latent, media in ((BALL, "media/ball.jpg"), (CUP, ""))
            ],
        ),
        f"{steer}/items.parquet": (ITEMS, item_rows()),
        f"{steer}/baselines.parquet": (BASELINES, baseline_rows()),
        f"{steer}/screen.parquet": (
            SCREEN,
            [row(SCREEN, latent=latent, status="screened", n_videos_active=8) for latent in range(D_SAE)],
        ),
        f"{steer}/targets.parquet": (
            TARGETS,
            [
                row(TARGETS, target=name, latents=list(target(name).latents), selected_by="sweep", subject=SUBJECT)
                for name in (str(BALL), str(UNLABELLED), "set")
            ],
        ),
        f"{steer}/effects.parquet": (EFFECTS, []),
        f"{steer}/controls.parquet": (
            CONTROLS,
            [each for target in (str(BALL), str(UNLABELLED), "set") for each in control_rows(target)],
        ),
        f"{steer}/summary.parquet": (SUMMARY, effects),
        f"{steer}/screens.parquet": (SCREENS, screens_rows()),
        f"{steer}/latent_subjects.parquet": (LATENT_SUBJECTS, latent_subject_rows()),
        f"{steer}/target_subjects.parquet": (
            TARGET_SUBJECTS,
            [
                row(
                    TARGET_SUBJECTS,
                    target=each["target"],
                    operation=each["operation"],
                    subject=subject,
                    is_chosen=subject == SUBJECT,
                    n_videos=4,
                    delta_margin=each["delta_margin"] if subject == SUBJECT else 0.01,
                )
                for each in effects
                for subject in (SUBJECT, OTHER_SUBJECT)
            ],
        ),
        f"{steer}/claims.parquet": (CLAIMS, claimed(effects)),
        f"{steer}/mechanisms.parquet": (MECHANISMS, mechanism_rows()),
        **{f"{steer}/{name}.parquet": (schema, []) for name, schema in MECHANISM_TABLES.items()},
        f"{steer}/dissociations.parquet": (
            DISSOCIATIONS,
            [
                row(
                    DISSOCIATIONS,
                    one=str(BALL),
                    one_subject=SUBJECT,
                    other=str(UNLABELLED),
                    other_subject=OTHER_SUBJECT,
                    one_on_one=-0.6,
                    one_on_other=0.01,
                    other_on_one=0.02,
                    other_on_other=-0.5,
                )
            ],
        ),
    }


def write_tables(run: Path, content: Mapping[str, tuple[pa.Schema, list[dict[str, Any]]]]) -> None:
    for name, (schema, rows) in content.items():
        write_table(run / name, pd.DataFrame(rows, columns=schema.names), schema)


def finish_run(collected: Path, data: Path, run: Path) -> Path:
    """Copy a run with activations and an SAE, and finish it."""
    shutil.copytree(collected, run)
    features, steer = run / "features" / SAE_NAME, run / "steer" / SAE_NAME
    sae_folder = run / "sae" / SAE_NAME
    store = ActivationStore.open(run / "activations")
    encode_store(store, load_sae(sae_folder), features / "codes.zarr", batch_size=64, device=torch.device("cpu"))
    for folder, stage, config in (
        (run / "profile", "profile", ProfileConfig(data=data, model="tiny model", out=run, items=12)),
        (sae_folder, "train", TrainConfig(run=run, site=SITE, name=SAE_NAME, arch=("topk",), d_sae=(D_SAE,), k=(4,))),
        (features, "features", FeaturesConfig(run=run, data=data, min_videos=2)),
        (steer, "steer", SteerConfig(run=run, operations=("ablate", "scale:2"), seed=3)),
    ):
        write_config(folder, stage, config, {})
    quality = {"fvu": 0.21, "l0": 4.0, "n_dead": 2, "n_dense": 1, "cosine": 0.9, "n_tokens": 512}
    sae = {"site": SITE, "architecture": "topk", "d_in": 64, "d_sae": D_SAE, "k": 4, "n_steps": 100}
    summaries: dict[Path, dict[str, Any]] = {
        run / "profile": {"site": "resid/0", "n_items": 12},
        sae_folder: {
            **sae,
            "n_training_tokens": 9000,
            "n_train_tokens": 512,
            "train": quality,
            "held_out": quality,
        },
        features: {"n_latents": D_SAE, "n_dead": 0, "n_labelled": 2, "n_tested": 2, "n_labels": 2},
        steer: {"n_items": 24},
    }
    for folder, content in summaries.items():
        write_summary(folder, content, ["cfg.json", "sae_weights.safetensors"] if folder == sae_folder else [])
    lines = [{"tokens": 4500 * n, "step": 50 * n, "fvu": 1 / n, "l0": 4.0, "dead": 24 - n} for n in (1, 2)]
    write_atomic(sae_folder / "metrics.jsonl", "".join(json.dumps(seal_object(line)) + "\n" for line in lines))
    (features / "media").mkdir()
    write_atomic(features / "media" / "ball.jpg", jpeg(Image.new("RGB", (80, 20), (90, 120, 60))))
    write_tables(run, tables())
    return run
