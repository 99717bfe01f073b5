"""The verdict on effects follows from the claims, and denies an effect only where one could have been found."""

from typing import Any

import pandas as pd
import pytest

from report.effect_verdict import effect_verdict
from report.verdicts import Verdict
from steer.evidence.claims import claims
from tests.steer.effect_rows import NO_DOSES, NO_SUBJECTS, OPERATIONS, effect_row, targets_of

TARGETS = targets_of("3", "4", "set")
ONE_SUBJECT = "the answers to the questions about one subject, and others by a quarter of that at most"
NO_OTHERS = dict.fromkeys(f"delta_margin_{of}{end}" for of in ("other", "noncounting") for end in ("", "_low", "_high"))


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def effects(*rows: dict[str, Any]) -> Verdict:
    return effect_verdict(frame(*rows), claims(frame(*rows), NO_SUBJECTS, OPERATIONS, NO_DOSES), TARGETS)


def test_an_effect_must_beat_its_controls_hold_over_videos_and_leave_other_questions_alone() -> None:
    strong = effects(effect_row("3", "ablate", -0.5), effect_row("4", "ablate", 0.1))
    assert (strong.answer, strong.headline) == (
        "yes",
        f"1 of 2 edited latents moves {ONE_SUBJECT}",
    )
    assert (
        "ablating latent 3, −0.50 nats [−0.60, −0.40] on “object” questions, where its controls stay within ±0.20; "
        "other counting questions +0.02; non-counting questions +0.05."
    ) in strong.text
    broad = effects(effect_row("3", "ablate", -0.5, delta_margin_other_low=-0.2))
    assert (broad.answer, broad.headline) == (
        "partly",
        "1 of 1 edited latent moves the answers to counting questions, but not, or not surely, of one subject alone",
    )
    assert effects(effect_row("3", "ablate", -0.5, q_value=0.3, n_videos_active=6)).answer == "no"
    none = effects(effect_row("3", "ablate", -0.1), effect_row("4", "ablate", 0.19))
    assert none.answer == "no"
    assert "The largest change: ablating latent 4" in none.text
    together = effects(effect_row("3", "ablate", 0.0), effect_row("set", "ablate", -2.0))
    assert together.headline == (f"the edited set moves {ONE_SUBJECT}")
    both = effects(effect_row("3", "ablate", -0.5), effect_row("set", "ablate", -2.0))
    assert "The largest of a single latent: ablating latent 3" in both.text
    assert effects(effect_row("3", "ablate", -0.5, limit=None)).answer == "unknown"
    assert effect_verdict(None, None, {}).answer == "unknown"


def test_where_no_other_questions_were_asked_nothing_is_said_of_them() -> None:
    verdict = effects(effect_row("3", "ablate", -0.5, **NO_OTHERS))
    assert (verdict.answer, verdict.headline) == (
        "partly",
        "1 of 1 edited latent moves the answers to counting questions; whether others too was not tested",
    )
    assert "0 of them others by a quarter of that at most; for 1, too few others were asked to tell" in verdict.text
    assert "no others" not in verdict.text


def test_too_few_controls_decide_nothing() -> None:
    verdict = effects(effect_row("3", "ablate", -0.5, control_q_value=0.2), effect_row("4", "ablate", 0.1, q_value=0.5))
    assert verdict.answer == "undecided"
    # Of two rows in a family one is ahead: q = 2 / 1 / (1 + n) < 0.05 from 40 controls on, 14 of each family of three.
    assert "it takes `video-sae steer --controls 14` at least" in verdict.text
    assert "None of" not in verdict.text


def test_too_few_videos_decide_nothing() -> None:
    few = {"q_value": 0.6, "n_videos_active": 2, "detectable": float("nan")}
    verdict = effects(effect_row("3", "ablate", -0.5, **few), effect_row("4", "ablate", 0.1, **few))
    assert verdict.answer == "unknown"
    assert "fewer than 6 held-out videos" in verdict.text
    some = effects(
        effect_row("3", "ablate", -0.1, n_videos_active=6, q_value=0.5), effect_row("4", "ablate", 0.1, **few)
    )
    assert some.answer == "no"
    assert "1 of them have an effect in too few videos to tell." in some.text


@pytest.mark.parametrize("n", [1, 2])
def test_effects_without_their_claims_are_not_judged(n: int) -> None:
    summary = frame(*(effect_row(str(3 + at), "ablate", -0.5) for at in range(n)))
    verdict = effect_verdict(summary, claims(summary[:0], NO_SUBJECTS, OPERATIONS, NO_DOSES), TARGETS)
    assert verdict.answer == "unknown"
    assert "claims.parquet" in verdict.text
    assert "run `video-sae steer` again" in verdict.text
    assert "None of" not in verdict.text
