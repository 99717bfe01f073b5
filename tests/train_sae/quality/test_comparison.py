"""SAEs side by side."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from train_sae.quality.comparison import comparison, on_pareto_front, pareto_chart, write_comparison


def write_summary(folder: Path, name: str, l0: float, fvu: float | None, **changes: Any) -> None:
    quality = {"fvu": fvu, "l0": l0, "n_dead": 1, "n_dense": 0, "cosine": 0.9, "relative_bias": 1.0, "n_tokens": 9}
    summary = {
        "site": "resid/1",
        "architecture": "topk",
        "d_sae": 64,
        "k": 4,
        "lr": 1e-3,
        "n_training_tokens": 900,
        "decoder_coherence_mean": 0.5,
        "train": quality,
        "held_out": quality,
        **changes,
    }
    (folder / name).mkdir(parents=True)
    (folder / name / "summary.json").write_text(json.dumps(summary))


def test_the_front_holds_what_nothing_dominates() -> None:
    # (10, .3) is dominated by (8, .2); of two equal ones both stay; NaN never is on it.
    l0, fvu = [8.0, 10.0, 4.0, 4.0, 20.0, 1.0], [0.2, 0.3, 0.5, 0.5, 0.1, float("nan")]
    assert on_pareto_front(l0, fvu) == [True, False, True, True, True, False]


def test_one_row_per_finished_sae_and_a_front_per_site(tmp_path: Path) -> None:
    write_summary(tmp_path, "b", 8.0, 0.2)
    write_summary(tmp_path, "a", 9.0, 0.4, held_out=None)
    write_summary(tmp_path, "c", 90.0, 0.9, site="resid/2", architecture="batchtopk")
    (tmp_path / "unfinished").mkdir()
    table = comparison(tmp_path)
    assert table["sae"].tolist() == ["a", "b", "c"]
    assert table["split"].tolist() == ["train", "held_out", "held_out"]
    assert table["pareto"].tolist() == [False, True, True]
    path = write_comparison(tmp_path)
    assert path.is_file()
    root = ElementTree.fromstring((tmp_path / "comparison.svg").read_text())
    titles = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(titles[1:]) == [
        "a: FVU 0.4000, L0 9.0, 1 dead (train)",
        "b: FVU 0.2000, L0 8.0, 1 dead (held_out)",
        "c: FVU 0.9000, L0 90.0, 1 dead (held_out)",
    ]


def test_a_single_sae_is_not_compared(tmp_path: Path) -> None:
    write_summary(tmp_path, "only", 8.0, 0.2)
    write_comparison(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["only"]


@pytest.mark.parametrize(("l0", "fvu"), [(0.001, 1e-5), (3.0, 0.7), (640.0, 1.3)])
def test_points_lie_inside_the_axes(tmp_path: Path, l0: float, fvu: float) -> None:
    write_summary(tmp_path, "a", l0, fvu)
    write_summary(tmp_path, "b", l0 / 2, fvu / 2)
    root = ElementTree.fromstring(pareto_chart(comparison(tmp_path)))
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))[:2]
    for circle in circles:
        assert 70 <= float(circle.attrib["cx"]) <= 460
        assert 24 <= float(circle.attrib["cy"]) <= 364
    # Half the FVU is half as high above the axis at 364.
    heights = sorted(364 - float(circle.attrib["cy"]) for circle in circles)
    assert heights[0] == pytest.approx(heights[1] / 2, abs=0.2)
