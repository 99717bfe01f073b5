"""The stage `verify`: the activation store, and with `--edits` whether edits of its model do what they say.

The self-tests are those that `steer` runs before it begins (`steer.selfcheck`), on the first held-out video, for every
finished SAE of the run.
"""

from __future__ import annotations

import logging
from pathlib import Path

from collect.config import VerifyConfig
from collect.errors import UserError
from collect.printable import printable
from collect.store.verify import verify as verify_store
from steer.config import SteerConfig

logger = logging.getLogger(__name__)


def verify(config: VerifyConfig) -> Path:
    """Check a store; with `edits`, also that edits do what they say.

    Returns:
        The folder of the store, if nothing is wrong.

    Raises:
        UserError: something is wrong with the store, the run has no SAE to edit, or a self-test fails, which is named.
    """
    folder = verify_store(config)
    if config.edits:
        _check_saes(config.run)
    return folder


def _check_saes(run: Path) -> None:
    # torch and transformers are needed here alone.
    from train_sae.reading import finished_saes

    names = finished_saes(run)
    if not names:
        where = printable(run / "sae", 4096)
        raise UserError(f"{where} has no finished SAE whose latents could be edited: run `video-sae train` first.")
    for name in names:
        _check(SteerConfig(run=run, sae=name, items=(1, 0)))
        logger.info("edits of %s do what they say", name)


def _check(config: SteerConfig) -> None:
    from ask.cases import Cases
    from steer.codes import CodedCases
    from steer.effects import Editor
    from steer.opened import load_inputs
    from steer.reference import reference
    from steer.selfcheck import check_edits

    inputs = load_inputs(config)
    cases = CodedCases(Cases(inputs.asked, inputs.sae.site), inputs.sae)
    usual = reference(inputs.asked.store, inputs.sae.site, inputs.sae, inputs.asked.train_videos)
    editor = Editor(model=cases.cases.model, sae=inputs.sae, reference=usual, batch_size=1)
    held_out = [video_id for video_id in cases.cases.videos if cases.cases.items(video_id)[0].held_out]
    check_edits(editor, *cases[held_out[0]])
