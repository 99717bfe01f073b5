"""What is needed to ask: a run's videos, the model that its activations came from, and the questions themselves.

All of it is checked to belong together before anything is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ask.questions import Item, items_of, sample_items
from collect.artefact.run_data import collected_with, data_of_run, model_of_run
from collect.data.perception_test import Dataset
from collect.data.split import held_out_ids
from collect.errors import UserError
from collect.printable import printable
from collect.reading import ActivationStore
from collect.video.sampling import FrameSampling
from collect.vlm import VideoVlm, load_vlm


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which questions a stage asks."""

    tasks: Sequence[str]
    """Tags of the counting questions."""
    items: int
    """Most counting questions about the train videos, and about the held-out videos."""
    noncounting_items: int
    """The same for non-counting questions."""
    seed: int
    """Of the draw."""
    data: Path | None
    """Folder of the data; if None, where the activations came from."""
    otherwise: str = "name other --tasks"
    """What the user can do where there are no counting questions, besides adding some."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnQuestions:
    """The questions that a stage asks about a run's videos."""

    dataset: Dataset
    items: tuple[Item, ...]
    train_videos: frozenset[str]
    annotations: str
    """Hash of the annotations of the collected videos."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedRun:
    """A run's videos with their questions, and the model that answers them."""

    store: ActivationStore
    vlm: VideoVlm
    dataset: Dataset
    items: tuple[Item, ...]
    frames: FrameSampling
    train_videos: frozenset[str]
    annotations: str
    """Hash of the annotations of the collected videos."""


def stages_of(run: Path, sae_name: str) -> dict[str, Path]:
    """The folders of the stages that must have taken the same annotations, in the order in which data is looked for."""
    return {stage: run / stage / sae_name for stage in ("steer", "features")}


def open_whole_store(run: Path, otherwise: str = "") -> ActivationStore:
    """Open activations that hold every visual token.

    Args:
        run: the run folder.
        otherwise: what else the user can do than collect all tokens, after a comma.

    Raises:
        UserError: there are none, or only some tokens were.
    """
    folder = run / "activations"
    tokens = collected_with(folder).value("tokens")
    store = ActivationStore.open(folder)
    if tokens not in (None, "all"):
        raise UserError(
            f"{folder} was collected with --tokens {printable(tokens)}, and all visual tokens are needed here: "
            f"collect with --tokens all{otherwise}."
        )
    return store


def draw_questions(
    run: Path, store: ActivationStore, wanted: Wanted, stages: Mapping[str, Path], own: str | None
) -> DrawnQuestions:
    """Open the data of a run, check that it belongs to its activations, and draw the questions; no model is needed.

    Args:
        run: the run folder.
        store: its activations.
        wanted: which questions.
        stages: folders of the stages that must have taken the same annotations.
        own: the stage that asks; None if it does not record its annotations.

    Raises:
        UserError: it does not, or there are no counting questions.
    """
    data = data_of_run(run, store, wanted.data, stages, own=own)
    held_out = held_out_ids((video.video_id, video.split) for video in store.videos)
    stored = {video.video_id for video in store.videos}
    known = {video.video_id for video in data.dataset.videos_with_files}
    items = items_of(data.dataset, wanted.tasks, held_out, stored & known, wanted.otherwise)
    return DrawnQuestions(
        dataset=data.dataset,
        items=drawn(items, wanted),
        train_videos=frozenset(stored - held_out),
        annotations=data.annotations,
    )


def open_asked(run: Path, store: ActivationStore, questions: DrawnQuestions, device: str) -> AskedRun:
    """Load the model of a run, and check that its activations came from it.

    Args:
        run: the run folder.
        store: its activations.
        questions: what it is asked.
        device: where it runs.

    Raises:
        UserError: the model is missing, or another one.
    """
    collected = collected_with(store.folder)
    said = {name: collected.text(name) for name in ("dtype", "attn_implementation", "frames") if collected.has(name)}
    model = model_of_run(run)
    vlm = load_vlm(
        model,
        dtype=cast("Any", said.get("dtype", "auto")),
        device=device,
        attn_implementation=cast("Any", said.get("attn_implementation", "sdpa")),
    )
    if vlm.fingerprint != store.model["fingerprint"]:
        raise UserError(
            f"{store.folder} holds activations of another model than the one in {model} now: "
            "put the old model back, or collect again into another run folder."
        )
    return AskedRun(
        store=store,
        vlm=vlm,
        dataset=questions.dataset,
        items=questions.items,
        frames=FrameSampling.parse(said.get("frames") or str(vlm.default_frames)),
        train_videos=questions.train_videos,
        annotations=questions.annotations,
    )


def drawn(items: Sequence[Item], wanted: Wanted) -> tuple[Item, ...]:
    """Draw the items to evaluate, separately for train and held-out videos.

    Non-counting questions are drawn first about videos that have a counting question, because these are run anyway.
    """
    kept: set[str] = set()
    for held_out in (False, True):
        own = [item for item in items if item.held_out == held_out]
        counting = sample_items([item for item in own if item.counting], wanted.items, wanted.seed)
        videos = {item.video_id for item in counting}
        other = [item for item in own if not item.counting]
        near = [item for item in other if item.video_id in videos]
        others = sample_items(near, wanted.noncounting_items, wanted.seed)
        far = [item for item in other if item.video_id not in videos]
        others += sample_items(far, wanted.noncounting_items - len(others), wanted.seed)
        kept |= {item.item_id for item in (*counting, *others)}
    return tuple(item for item in items if item.item_id in kept)
