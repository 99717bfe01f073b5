"""Association and effect in one table, and what they say together."""

from typing import Any

import pandas as pd

from report.target_rows import coincidence, single_latents, target_rows
from tests.steer.effect_rows import effect_row, targets_of
from tests.steer.finished_run import catalogue_row, labelled_row


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def test_labels_and_effects_are_counted_together() -> None:
    catalogue = frame(catalogue_row(0), labelled_row(1, "cup", 0.9), labelled_row(2, "ball", 0.9))
    effects = [("1", -0.5), ("2", 0.1), ("0", 0.3), ("set", -2.0)]
    rows = target_rows(
        frame(*(effect_row(name, "ablate", d) for name, d in effects)), targets_of("0", "1", "2", "set"), catalogue
    )
    assert [row.target.id for row in rows] == ["1", "0", "2", "set"]  # by size, the set last
    assert [row.label for row in rows] == ["cup", "no name", "ball", ""]
    assert coincidence(rows) == ("Of 2 edited latents with a name, 1 has a confirmed effect; of 1 without one, 1.")
    assert coincidence(target_rows(frame(effect_row("1", "ablate", 1.0)), targets_of("1"), None)) == ""


def test_single_latents_come_by_the_size_of_their_effect() -> None:
    summary = frame(*(effect_row(target, "ablate", delta) for target, delta in (("4", 0.3), ("9", -0.5), ("set", 2.0))))
    assert single_latents(summary, summary["confirmed"]) == [9, 4]
