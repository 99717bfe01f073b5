"""Charts are well-formed, hold every point, stay inside their frame and escape what they are given."""

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from report.charts import (
    EFFECT,
    accuracy_bar,
    effects_chart,
    effects_key,
    profile_chart,
    signed_tick,
    training_chart,
)
from report.target_rows import target_rows
from steer.targets import Target
from tests.steer.effect_rows import control_rows, effect_row, targets_of
from tests.steer.finished_run import labelled_row, profile_rows


def parse(svg: str) -> ElementTree.Element:
    """The chart's root, once every coordinate has been found inside its frame."""
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for shape in root.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert -0.1 <= float(shape.get(name, 0)) <= width + 0.1, (shape.tag, shape.attrib)
        for name in ("y", "y1", "y2", "cy"):
            assert -0.1 <= float(shape.get(name, 0)) <= height + 0.1, (shape.tag, shape.attrib)
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter("text")]


def test_the_profile_has_a_point_per_site_and_kind() -> None:
    root = parse(profile_chart(pd.DataFrame(profile_rows()), "resid/0", 0.5))
    assert len(list(root.iter("polyline"))) == 4
    assert len(list(root.iter("circle"))) == 4 * 3
    assert "picked" in texts(root)
    picked = next(element for element in root.iter("text") if element.text == "resid/0")
    band = next(root.iter("rect"))
    left = float(band.attrib["x"])
    assert left < float(picked.attrib["x"]) < left + float(band.attrib["width"])


def test_a_profile_without_any_fall_can_be_drawn() -> None:
    rows = [{**row, "fall": 0.0, "fall_low": 0.0, "fall_high": None} for row in profile_rows()]
    parse(profile_chart(pd.DataFrame(rows), "projector", 0.5))


@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize("held_out", [None, 0.3])
def test_the_training_curve_of_any_length_can_be_drawn(n: int, held_out: float | None) -> None:
    steps = np.arange(1, n + 1)
    curve = pd.DataFrame({"tokens": steps * 1000, "fvu": 1 / steps, "l0": 8.0, "dead": 0.0})
    root = parse(training_chart(curve, held_out))
    assert [len(line.attrib["points"].split()) for line in root.iter("polyline")] == [n] * 3


def test_effects_stand_against_every_control() -> None:
    summary = pd.DataFrame(
        [effect_row("1", "ablate", -0.5), effect_row("2", "ablate", 0.1), effect_row("set", "ablate", -5.0)]
    )
    catalogue = pd.DataFrame([labelled_row(1, "a <b> & c", 0.9), labelled_row(2, "x" * 60, 0.9)])
    controls = pd.DataFrame([row for target in ("1", "2", "set") for row in control_rows(target)])
    svg = effects_chart(target_rows(summary, targets_of(*summary["target"]), catalogue), "ablate", controls)
    root = parse(svg)
    small = [dot for dot in root.iter("circle") if dot.attrib["r"] == "1.7"]
    assert len(small) == 3 * 9
    filled = [dot for dot in root.iter("circle") if dot.attrib["r"] == "4.4" and dot.attrib["fill"] == EFFECT]
    assert len(filled) == 2  # latent 1 and the set beat their controls
    assert "a <b> & c" in texts(root)
    assert "<b>" not in svg
    assert texts(root).count("0") == 2  # the set has an axis of its own


@pytest.mark.parametrize(
    "label", ["lifting something begins", "lamp", "x" * 50, "one two three four five six seven eight"]
)
def test_a_long_title_stays_beside_the_chart(label: str) -> None:
    summary = pd.DataFrame([effect_row("set", "ablate", -5.0)])
    named = {"set": Target(**{**vars(targets_of("set")["set"]), "label": label, "label_kind": "action"})}
    controls = pd.DataFrame(control_rows("set"))
    root = parse(effects_chart(target_rows(summary, named, None), "ablate", controls))
    bold = [element.text or "" for element in root.iter("text") if element.get("font-weight") == "600"]
    assert 1 <= len(bold) <= 2
    assert max(map(len, bold)) <= 17
    assert " ".join(bold).startswith(label[:4])
    assert "".join(bold).endswith(("(action)", "…"))


def test_effects_without_controls_can_be_drawn() -> None:
    summary = pd.DataFrame([effect_row("1", "ablate", 0.0, limit=None, delta_margin_noncounting=None)])
    empty = pd.DataFrame(control_rows("1")).iloc[:0]
    parse(effects_chart(target_rows(summary, targets_of(*summary["target"]), None), "ablate", empty))


def test_an_accuracy_bar_is_as_long_as_the_accuracy() -> None:
    row = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "counting": True}
    root = parse(accuracy_bar({**row, "chance": 1 / 3, "answer_frequency": 0.4, "question_only": 0.3}))
    whole, bar = (float(rect.attrib["width"]) for rect in root.iter("rect"))
    assert bar == pytest.approx(whole / 2)


def test_the_key_is_well_formed() -> None:
    assert len(texts(parse(effects_key()))) == 7


def test_ticks_of_changes_carry_their_sign() -> None:
    assert [signed_tick(value) for value in (-0.5, 0.0, 1500.0)] == ["−0.5", "0", "+1,500"]
