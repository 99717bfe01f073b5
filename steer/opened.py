"""What the steer stage reads: activations, SAE, model and questions, checked to belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ask.opened import AskedRun, Wanted, draw_questions, open_asked, open_whole_store, stages_of
from ask.questions import manifest_hash
from collect.artefact.folder import file_hash
from collect.artefact.stage import is_finished
from collect.errors import UserError
from features.reading import ASSOCIATIONS_NAME
from steer.config import SteerConfig
from steer.edits.scopes import require_scopes
from train_sae.opened import OpenedSae, open_sae
from train_sae.sae import Sae


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """Everything that the stage reads."""

    asked: AskedRun
    sae: Sae
    opened: OpenedSae
    """Where the SAE was found."""
    features_folder: Path | None
    """Of the features stage for this SAE; None where that is not finished."""

    def hashes(self) -> dict[str, str]:
        """What a resumed run must find unchanged; without associations none can select a latent."""
        folder = self.features_folder
        return {
            "associations": "none" if folder is None else file_hash(folder / ASSOCIATIONS_NAME),
            "activations": self.asked.store.fingerprint,
            "model": self.asked.vlm.fingerprint,
            **self.opened.hashes(),
            "items": manifest_hash(self.asked.items),
            "annotations": self.asked.annotations,
        }


def load_inputs(config: SteerConfig) -> Inputs:
    """Open the run's activations and SAE, the model and the questions, and check that they belong together.

    Raises:
        UserError: they do not, or one of them is missing.
    """
    store = open_whole_store(config.run)
    opened = open_sae(config.run, store, config.sae, decoded=True)
    wanted = Wanted(
        tasks=config.tasks,
        items=config.items[0],
        noncounting_items=config.items[1],
        seed=config.seed,
        data=config.data,
    )
    questions = draw_questions(config.run, store, wanted, stages_of(config.run, opened.name), own="steer")
    if not any(item.held_out and item.counting for item in questions.items):
        raise UserError(
            f"{questions.dataset.folder} has no counting question about a held-out video of {store.folder}, so that no "
            "effect could be confirmed: collect more videos."
        )
    edited = {item.video_id for item in questions.items if item.held_out}
    videos = [video for video in questions.dataset.videos if video.video_id in edited]
    n_steps = max(video.grid.n_t for video in store.videos if video.video_id in edited)
    require_scopes(config.parsed_operations, videos, n_steps)
    asked = open_asked(config.run, store, questions, config.device)
    folder = config.run / "features" / opened.name
    return Inputs(
        asked=asked,
        sae=opened.sae.to(asked.vlm.device),
        opened=opened,
        features_folder=folder if is_finished(folder) else None,
    )
