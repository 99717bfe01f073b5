"""`verify` checks the store, and with `--edits` names the self-test that a model fails."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from collect.config import VerifyConfig
from collect.errors import UserError
from steer import selfcheck
from steer.edits.verified import verify
from tests.small_run import SAE_NAME


def test_a_sound_run_passes(run_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert verify(VerifyConfig(run=run_folder, edits=True)) == run_folder / "activations"
    assert f"edits of {SAE_NAME} do what they say" in caplog.text


def test_a_failing_self_test_is_named_only_where_it_is_asked_for(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(model: Any, case: Any, changes: Any, batch_size: int) -> Any:
        del model, changes, batch_size
        return case.logits[None] + 1e-6, case.mass[None]

    monkeypatch.setattr(selfcheck, "edited_logits", shifted)
    verify(VerifyConfig(run=run_folder))
    with pytest.raises(UserError, match=r"fails a self-test .*: an edit of nothing changes the answers"):
        verify(VerifyConfig(run=run_folder, edits=True))


def test_a_run_without_an_sae_is_told_what_is_missing(run_folder: Path) -> None:
    shutil.rmtree(run_folder / "sae")
    with pytest.raises(UserError, match="has no finished SAE whose latents could be edited"):
        verify(VerifyConfig(run=run_folder, edits=True))
