"""The kinds of artefact, where their files lie in the world, and which commands read them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.fuzz.commands import COMMANDS, SAE

_STORE_READERS = ("verify", "train", "features", "evaluate", "steer", "report", "archive plain", "archive packed")
_CHECK = ("check",) if "check" in COMMANDS else ()


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Files of one kind."""

    name: str
    files: tuple[str, ...]
    """Patterns below the world; of a stopped stage, the files that it has."""
    readers: tuple[str, ...]
    is_input: bool = False
    """Whether somebody else made it: other content, where it is recorded by its hash, may give other results."""
    is_shown: bool = False
    """Whether people see it as it is: any content is right that can be shown."""
    is_scratch: bool = False
    """Whether only what is made from it counts: it may keep a change that makes no difference."""


def _run(pattern: str) -> str:
    return f"run/{pattern}"


KINDS = (
    Kind(
        name="annotations",
        files=("data/annotations/all.json",),
        readers=("plan", "profile", "collect", "features", "evaluate", "steer", *_CHECK),
        is_input=True,
    ),
    Kind(
        name="questions",
        files=("data/annotations/mc_question.json",),
        readers=("profile", "collect", "features", "evaluate", "steer", *_CHECK),
        is_input=True,
    ),
    Kind(name="id list", files=("ids.txt",), readers=("plan", "collect", "collect again"), is_input=True),
    Kind(
        name="cut frames",
        files=("data/cut_frame_mapping_all.json",),
        readers=("profile", "collect", "collect again", "evaluate", "steer", *_CHECK),
        is_input=True,
    ),
    Kind(name="hub questions", files=("hub/valid.parquet",), readers=("profile hub",), is_input=True),
    Kind(
        name="video",
        files=("data/videos/*.mp4",),
        readers=("plan", "profile", "collect", "resume collect", "features", "evaluate", "steer", *_CHECK),
        is_input=True,
    ),
    Kind(
        name="model",
        files=("model/*",),
        readers=("plan", "profile", "collect", "resume collect", "evaluate", "steer"),
        is_input=True,
    ),
    Kind(
        name="download record",
        files=("downloaded/download.json",),
        readers=("download",),
        is_scratch=True,
    ),
    Kind(
        name="downloaded file",
        files=("downloaded/archives/.*", "downloaded/archives/*", "downloaded/cut_frame_mapping_*.json"),
        readers=("download",),
        is_scratch=True,
    ),
    Kind(
        name="store manifest",
        files=(_run("activations/manifest.json"),),
        readers=(*_STORE_READERS, "collect again", "repair"),
    ),
    Kind(
        name="rank log",
        files=(_run("activations/rank-*.jsonl"),),
        readers=(*_STORE_READERS, "resume collect", "repair"),
    ),
    Kind(name="store plan", files=(_run("activations/plan.json"),), readers=("resume collect",), is_scratch=True),
    Kind(
        name="zarr.json",
        files=(_run("activations/**/zarr.json"),),
        readers=("verify", "archive plain", "archive packed", "resume collect", "repair"),
    ),
    Kind(
        name="shard",
        files=(_run("activations/**/c/*/0"),),
        readers=(*_STORE_READERS, "resume collect", "repair"),
    ),
    Kind(
        name="archive",
        files=("plain/**/*",),
        readers=("restore plain", "archive plain"),
    ),
    Kind(
        name="compressed archive",
        files=("packed/**/*",),
        readers=("restore packed", "archive packed"),
    ),
    Kind(
        name="SAE",
        files=tuple(_run(f"sae/{SAE}/{name}") for name in ("cfg.json", "sae_weights.safetensors")),
        readers=("features", "features again", "evaluate", "steer", "report"),
        is_input=True,
    ),
    Kind(
        name="SAE record",
        files=tuple(
            _run(f"sae/{name}")
            for name in (
                f"{SAE}/metrics.jsonl",
                f"{SAE}/summary.json",
                f"{SAE}/sparsity.safetensors",
                f"{SAE}/evaluation.json",
                "comparison.parquet",
            )
        ),
        readers=("report", "train another"),
    ),
    Kind(
        name="checkpoint",
        files=(_run(f"sae/{SAE}/checkpoints/*"), _run(f"sae/{SAE}/metrics.jsonl")),
        readers=("resume train",),
        is_scratch=True,
    ),
    Kind(
        name="codes",
        files=tuple(_run(f"features/{SAE}/{name}/**/*") for name in ("codes.zarr", "codes_by_latent.zarr")),
        readers=("resume features", "report"),
        is_scratch=True,
    ),
    Kind(
        name="features table",
        files=tuple(_run(f"features/{SAE}/{name}.parquet") for name in ("catalogue", "associations", "exemplars")),
        readers=("report", "steer", "export", "export again"),
    ),
    Kind(
        name="optional features table",
        files=tuple(_run(f"features/{SAE}/{name}.parquet") for name in ("combinations", "brightness")),
        readers=("export", "features again"),
    ),
    Kind(name="features summary", files=(_run(f"features/{SAE}/summary.json"),), readers=("report", "export")),
    Kind(name="picture", files=(_run(f"features/{SAE}/media/**/*-strip.jpg"),), readers=("report",), is_shown=True),
    Kind(
        name="profile",
        files=(_run("profile/profile.parquet"), _run("profile/summary.json")),
        readers=("report", "export"),
    ),
    Kind(
        name="steer table",
        files=(_run(f"steer/{SAE}/*.parquet"), _run(f"steer/{SAE}/summary.json")),
        readers=("report", "export"),
    ),
    Kind(
        name="steer part",
        files=(_run(f"steer/{SAE}/parts/*"), _run(f"steer/{SAE}/*.parquet")),
        readers=("resume steer",),
        is_scratch=True,
    ),
    Kind(
        name="export",
        files=("set/README.md", "set/summary.json", "set/data/*/table.parquet"),
        readers=("export again",),
        is_scratch=True,
    ),
    Kind(
        name="config",
        files=(
            _run("activations/config.json"),
            _run("profile/config.json"),
            "set/config.json",
            *(_run(f"{stage}/{SAE}/config.json") for stage in ("sae", "features", "steer")),
        ),
        readers=(
            "report",
            "verify",
            "collect again",
            "resume collect",
            "train again",
            "resume train",
            "features again",
            "resume features",
            "steer again",
            "resume steer",
            "profile again",
            "export again",
            "features",
            "evaluate",
            "steer",
        ),
        is_input=True,
        is_scratch=True,
    ),
)
