"""What the steer stage reads (activations, SAE, model, questions), checked to belong together, and its cases."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from torch import Tensor

from ask.byte_cache import Shelf
from ask.questions import LETTERS, Item, items_of, manifest_hash, sample_items
from collect.artefact.folder import file_hash, read_config
from collect.artefact.run_data import data_of_run, model_of_run
from collect.artefact.stage import is_finished
from collect.data.perception_test import Dataset
from collect.data.split import held_out_ids
from collect.errors import UserError
from collect.reading import ActivationStore
from collect.video.sampling import FrameSampling
from collect.vlm import Prefix, VideoVlm, load_vlm
from steer.cases import Case, Codes, build_case, clip_prefix, lay_out, packing_works, residuals_at
from steer.config import SteerConfig
from steer.selection import ASSOCIATIONS_NAME
from train_sae.opened import OpenedSae, open_sae
from train_sae.sae import WEIGHTS_NAME, Sae

logger = logging.getLogger(__name__)

MAX_RESIDUAL_DIFFERENCE = 0.05
"""Relative difference between a stored and a recomputed residual beyond which the video is not the stored one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """Everything that the stage reads."""

    store: ActivationStore
    sae: Sae
    opened: OpenedSae
    """Where the SAE was found."""
    vlm: VideoVlm
    dataset: Dataset
    items: tuple[Item, ...]
    frames: FrameSampling
    train_videos: frozenset[str]
    features_folder: Path | None
    """Of the features stage for this SAE; None where that is not finished."""
    annotations: str
    """Hash of what is annotated about the collected videos."""

    def hashes(self) -> dict[str, str]:
        """What a resumed run must find unchanged; without associations none can select a latent."""
        folder = self.features_folder
        return {
            "associations": "none" if folder is None else file_hash(folder / ASSOCIATIONS_NAME),
            "activations": self.store.fingerprint,
            "model": self.vlm.fingerprint,
            "sae": file_hash(self.opened.folder / WEIGHTS_NAME),
            "items": manifest_hash(self.items),
            "annotations": self.annotations,
        }


def stages_of(run: Path, sae_name: str) -> dict[str, Path]:
    """The folders of the stages that must have taken the same annotations, in the order in which data is looked for."""
    return {stage: run / stage / sae_name for stage in ("steer", "features")}


def load_inputs(config: SteerConfig, stage: str | None = "steer") -> Inputs:
    """Open the run's activations and SAE, the model and the questions, and check that they belong together.

    Args:
        config: names them.
        stage: the stage that asks; None if it is none that records its annotations.

    Raises:
        UserError: they do not, or one of them is missing.
    """
    store_folder = config.run / "activations"
    collected = read_config(store_folder, "collect")["arguments"]
    store = ActivationStore.open(store_folder)
    if collected.get("tokens", "all") != "all":
        raise UserError(
            f"{store_folder} was collected with --tokens {collected['tokens']}, and steer edits all visual tokens: "
            "collect with --tokens all."
        )
    opened = open_sae(config.run, store, config.sae, decoded=True)
    data = data_of_run(config.run, store, config.data, stages_of(config.run, opened.name), own=stage)
    model = model_of_run(config.run)
    vlm = load_vlm(
        model,
        dtype=collected.get("dtype", "auto"),
        device=config.device,
        attn_implementation=collected.get("attn_implementation", "sdpa"),
    )
    if vlm.fingerprint != store.model["fingerprint"]:
        raise UserError(
            f"{store_folder} holds activations of another model than the one in {model} now: "
            "put the old model back, or collect again into another run folder."
        )
    dataset = data.dataset
    features_folder = config.run / "features" / opened.name
    held_out = held_out_ids((video.video_id, video.split) for video in store.videos)
    stored = {video.video_id for video in store.videos}
    known = {video.video_id for video in dataset.videos_with_files}
    items = evaluated(items_of(dataset, config.tasks, held_out, stored & known), config)
    if not any(item.held_out and item.counting for item in items):
        raise UserError(
            f"{dataset.folder} has no counting question about a held-out video of {store_folder}, so that no effect "
            "could be confirmed: collect more videos."
        )
    return Inputs(
        store=store,
        sae=opened.sae.to(vlm.device),
        opened=opened,
        vlm=vlm,
        dataset=dataset,
        items=items,
        frames=FrameSampling.parse(collected.get("frames") or str(vlm.default_frames)),
        train_videos=frozenset(stored - held_out),
        features_folder=features_folder if is_finished(features_folder) else None,
        annotations=data.annotations,
    )


def evaluated(items: Sequence[Item], config: SteerConfig) -> tuple[Item, ...]:
    """Draw the items to evaluate, in each of the train and held-out videos.

    Control questions are drawn about the videos that have a counting question first: these are run anyway.
    """
    kept: set[str] = set()
    for held_out in (False, True):
        own = [item for item in items if item.held_out == held_out]
        counting = sample_items([item for item in own if item.counting], config.items, config.seed)
        videos = {item.video_id for item in counting}
        other = [item for item in own if not item.counting]
        near = [item for item in other if item.video_id in videos]
        control = sample_items(near, config.control_items, config.seed)
        far = [item for item in other if item.video_id not in videos]
        control += sample_items(far, config.control_items - len(control), config.seed)
        kept |= {item.item_id for item in (*counting, *control)}
    return tuple(item for item in items if item.item_id in kept)


class Cases:
    """The cases of a run and the codes of their visual tokens, made when needed and kept while memory allows."""

    def __init__(self, inputs: Inputs) -> None:
        """Group the items by video."""
        self._inputs = inputs
        self._by_video: dict[str, list[Item]] = {}
        for item in inputs.items:
            self._by_video.setdefault(item.video_id, []).append(item)
        self._records = {record.video_id: record for record in inputs.store.videos}
        self._packed: bool | None = None
        self._shelf = Shelf(self._build, lambda made: made[0].laid.n_bytes + 20 * len(made[1].value))
        self.letters: Int[Tensor, " letter"] = inputs.vlm.answer_ids(LETTERS)

    @property
    def videos(self) -> list[str]:
        """Ids of all videos with items, in order."""
        return list(self._by_video)

    def items(self, video_id: str) -> list[Item]:
        """Items about one video."""
        return self._by_video[video_id]

    def __getitem__(self, video_id: str) -> tuple[Case, Codes]:
        """Return a video's case and codes.

        Raises:
            UserError: the video cannot be decoded, or is not what the activations were collected from.
        """
        return self._shelf[video_id]

    def _build(self, video_id: str) -> tuple[Case, Codes]:
        vlm, site, items = self._inputs.vlm, self._inputs.sae.site, self._by_video[video_id]
        prefix = clip_prefix(vlm, self._inputs.dataset.video(video_id), self._inputs.frames)
        self._check_frames(video_id, prefix)
        if self._packed is None:
            self._packed = packing_works(vlm, prefix, items, site)
            logger.info("questions of one video are run %s", "packed behind one prefix" if self._packed else "singly")
        laid = residuals_at(vlm, lay_out(vlm, prefix, items, packed=self._packed), site)
        self._check_residuals(video_id, laid.visual)
        return build_case(vlm, site, laid, items, self.letters), Codes.of(self._inputs.sae, laid.visual)

    def _check_frames(self, video_id: str, prefix: Prefix) -> None:
        if not np.array_equal(prefix.grid.frame_ids, self._records[video_id].grid.frame_ids):
            raise UserError(
                f"{self._inputs.dataset.video(video_id).path} no longer gives the frames that its activations were "
                "collected from: put the old video and cut-frame mapping back, or collect again."
            )

    def _check_residuals(self, video_id: str, residuals: Tensor) -> None:
        """Compare the first row with the store's, which also finds a changed preprocessing or precision."""
        record = self._records[video_id]
        stored = self._inputs.store.read(self._inputs.sae.site, record.row_start, record.row_start + 1)[0].float()
        difference = (stored - residuals[0].float().cpu()).norm() / stored.norm()
        if difference > MAX_RESIDUAL_DIFFERENCE:
            raise UserError(
                f"{self._inputs.dataset.video(video_id).path} gives other residuals than those stored for it "
                f"({difference:.0%} off): collect again into another run folder."
            )
