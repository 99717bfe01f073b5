"""The self-tests pass on a model that does what it should, and name what is wrong with one that does not."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from collect.errors import UserError
from steer import selfcheck
from steer.codes import CodedCases
from steer.selfcheck import check_edits, check_on_a_video
from tests.steer.test_effects import case_and_codes, editor


class Videos(dict[str, Any]):
    """Stands for `CodedCases`."""

    __class__ = CodedCases

    @property
    def cases(self) -> Any:
        return SimpleNamespace(videos=list(self))


def test_a_sound_model_passes() -> None:
    own = editor()
    check_edits(own, *case_and_codes(own))


def test_silent_videos_are_passed_over_and_a_silent_sae_is_refused() -> None:
    own = editor()
    case, codes = case_and_codes(own)
    nothing = torch.zeros(0, dtype=codes.latent.dtype)
    silent = dataclasses.replace(codes, token=nothing, latent=nothing, value=codes.value[:0])
    two: Any = {"a": (case, silent), "b": (case, codes)}
    check_on_a_video(own, Videos(two))
    with pytest.raises(UserError, match=r"No latent of the SAE at .* fires in any video"):
        check_on_a_video(own, Videos({"a": two["a"]}))


def drifting() -> Callable[..., Any]:
    """Answers that depend on how many passes came before, except for edits of nothing."""
    n_passes = 0
    whole = selfcheck.edited_logits

    def answer(model: Any, case: Any, changes: Any, batch_size: int) -> Any:
        nonlocal n_passes
        n_passes += 1
        changes = list(changes)
        logits, mass = whole(model, case, changes, batch_size)
        return logits + 1e-6 * n_passes * float(any(change.any() for change in changes)), mass

    return answer


def shifted(model: Any, case: Any, changes: Any, batch_size: int) -> Any:
    del model, changes, batch_size
    return case.logits[None] + 1e-6, case.mass[None]


@pytest.mark.parametrize(
    ("name", "broken", "said"),
    [
        ("edited_logits", lambda: shifted, "an edit of nothing changes the answers"),
        ("edited_logits", drifting, "depends on what was run before"),
    ],
)
def test_a_model_that_answers_otherwise_is_named(
    name: str, broken: Callable[[], Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = editor()
    case, codes = case_and_codes(own)
    monkeypatch.setattr(selfcheck, name, broken())
    with pytest.raises(UserError, match=f"toy fails a self-test of this stage at resid/0: .*{said}"):
        check_edits(own, case, codes)


@pytest.mark.parametrize(
    ("factor", "roll", "said"), [(0.9, 0, "another norm"), (1.0, 1, "does not stand on the tokens")]
)
def test_an_edit_that_is_not_what_was_asked_for_is_named(
    factor: float, roll: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = editor()
    case, codes = case_and_codes(own)
    made = selfcheck.edit

    def other(*arguments: Any) -> Any:
        found = made(*arguments)
        return dataclasses.replace(found, change=torch.roll(factor * found.change, roll, dims=0))

    monkeypatch.setattr(selfcheck, "edit", other)
    with pytest.raises(UserError, match=said):
        check_edits(own, case, codes)


def test_an_edit_that_the_model_does_not_see_at_its_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    own = editor()
    case, codes = case_and_codes(own)
    unseen = selfcheck.run_on(own.model, case.sequences, case.sequences.hidden)
    monkeypatch.setattr(selfcheck, "run_on", lambda *_: unseen)
    with pytest.raises(UserError, match="not seen at that token"):
        check_edits(own, case, codes)
