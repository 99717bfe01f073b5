"""Association and effect in one table, and what they say together."""

from typing import Any

import pandas as pd

from report.target_rows import coincidence, opposite_signs, screen_agreement, single_latents, target_rows
from tests.steer.finished_run import catalogue_row, effect_row, labelled_row, targets_of


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def test_labels_and_effects_are_counted_together() -> None:
    catalogue = frame(catalogue_row(0), labelled_row(1, "cup", 0.9), labelled_row(2, "ball", 0.9))
    effects = [("1", -0.5), ("2", 0.1), ("0", 0.3), ("set", -2.0)]
    rows = target_rows(
        frame(*(effect_row(name, "ablate", d) for name, d in effects)), targets_of("0", "1", "2", "set"), catalogue
    )
    assert [row.target.id for row in rows] == ["1", "0", "2", "set"]  # by size, the set last
    assert [row.label for row in rows] == ["cup", "no label holds", "ball", ""]
    assert coincidence(rows) == (
        "Of 2 edited latents with a label that holds, 1 beat their controls; of 1 without one, 1 do."
    )
    assert coincidence(target_rows(frame(effect_row("1", "ablate", 1.0)), targets_of("1"), None)) == ""


def test_opposite_edits_are_compared() -> None:
    both = [effect_row("1", "ablate", -0.5), effect_row("1", "scale:2", 0.4)]
    same = [effect_row("2", "ablate", -0.5), effect_row("2", "scale:2", -0.4)]
    small = [effect_row("3", "ablate", -0.1), effect_row("3", "scale:2", 0.1)]
    assert "Of 2 targets that beat the controls, 1 change" in opposite_signs(frame(*both, *same, *small))
    assert opposite_signs(frame(*small)) == ""
    assert opposite_signs(frame(both[0])) == ""


def test_the_screen_is_compared_with_exact_runs() -> None:
    rows = [effect_row(str(n), "ablate", delta) for n, delta in enumerate((-0.4, -0.3, 0.1, 0.2))]
    text = screen_agreement(frame(*rows))  # the screen estimates nine tenths of each
    assert "rank correlation of 1.00 and has the same sign for 4." in text
    assert screen_agreement(frame(*rows[:3])) == ""


def test_single_latents_come_by_the_size_of_their_effect() -> None:
    summary = frame(*(effect_row(target, "ablate", delta) for target, delta in (("4", 0.3), ("9", -0.5), ("set", 2.0))))
    assert single_latents(summary, summary["beats_controls"]) == [9, 4]
