"""The page: complete, self-contained, escaped, true to the tables, and clear about what is missing."""

import base64
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from collect.artefact.folder import read_object, write_json, write_table
from features.combinations.combine import COMBINATIONS
from features.pictures.media import jpeg
from report.config import ReportConfig
from report.page import render, report
from report.record import Stage, read_record
from report.reproduction import command
from steer.tables import CLAIMS
from tests.report.parsed_page import Page
from tests.small_run import SAE_NAME
from tests.steer.effect_rows import claimed, effect_row
from tests.steer.finished_run import BALL, CUP, tables, write_tables


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    parsed = Page(page)
    assert {tag for tag, _ in parsed.elements}.isdisjoint({"script", "link", "iframe", "object", "a"})
    for tag, attributes in parsed.elements:
        assert not any(name.startswith("on") for name in attributes), tag
        assert str(attributes.get("src", "data:image/")).startswith("data:image/"), tag
    assert re.search(r"https?://|@import|url\(", page) is None


def test_a_picture_of_any_size_is_embedded_whole(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 900, 3), dtype=np.uint8)
    large = jpeg(Image.fromarray(noise))
    assert len(large) > 150_000
    monkeypatch.setattr("report.pictures.read_picture", lambda *_: (large, (900, 240)))
    sources = [
        str(attributes["src"])
        for tag, attributes in Page(report(ReportConfig(run=copy)).read_text(encoding="utf-8")).elements
        if tag == "img"
    ]
    assert sources
    for source in sources:
        assert base64.b64decode(source.partition(",")[2], validate=True) == large


def test_it_leads_to_the_page_of_latents_only_if_there_is_one(copy: Path) -> None:
    assert "../browse/index.html" not in report(ReportConfig(run=copy)).read_text(encoding="utf-8")
    (copy / "browse").mkdir()
    (copy / "browse" / "index.html").write_text("the page")
    links = [
        attributes["href"]
        for tag, attributes in Page(report(ReportConfig(run=copy)).read_text(encoding="utf-8")).elements
        if tag == "a"
    ]
    assert links == ["../browse/index.html"]


def test_combinations_are_listed_where_they_were_asked_for(page: str, copy: Path) -> None:
    assert "Combinations of labels" not in Page(page).text
    shared = {
        "latent": CUP,
        "depth": 2,
        "labels": ["cup", "red"],
        "kinds": ["object", "object"],
        "levels": ["token", "token"],
        "n_tried": 9,
        "n_tokens": 5,
        "n_videos": 3,
        "train_correlation": 0.9,
        "explained": 0.5,
        "best_part": "cup",
        "best_part_correlation": 0.4,
        "gain_low": 0.1,
        "gain_high": 0.5,
        "p_value": 0.001,
        "q_value": 0.002,
    }
    rows = [
        {**shared, "combination": "cup AND <red>", "correlation": 0.71, "gain": 0.31, "beats_parts": True},
        {**shared, "combination": "cup OR red", "correlation": 0.6, "gain": 0.2, "beats_parts": False},
    ]
    folder = copy / "features" / SAE_NAME
    write_table(folder / "combinations.parquet", pd.DataFrame(rows), COMBINATIONS)
    text = Page(report(ReportConfig(run=copy)).read_text(encoding="utf-8")).text
    assert "cup AND <red>" in text
    assert "+0.31" in text
    assert "cup OR red" not in text
    assert "1 of 1 of 2 combinations" in text
    write_table(folder / "combinations.parquet", pd.DataFrame(rows[1:]), COMBINATIONS)
    assert "None of 1 combinations" in Page(report(ReportConfig(run=copy)).read_text(encoding="utf-8")).text


def test_every_part_is_there(page: str) -> None:
    text = Page(page).text
    for heading in (
        "Model, data and SAE",
        "What the model answers, and where it reads the video",
        "What latents respond to",
        "Associations on held-out videos",
        "What latents do to the answers",
        "Association and effect, side by side",
        "What was not tested",
        "How to reproduce",
    ):
        assert heading in text
    assert page.count("<svg") == 1 + 5 + 1 + 2 + 1  # training, five kinds of question, profile, two operations, key
    assert "0.210" in text  # FVU
    assert "video-sae train --run" in text
    assert "--operations" not in text  # at its default
    assert "None" not in text
    assert "nan" not in text


def test_names_are_said_to_be_what_the_rule_makes_them(page: str, copy: Path) -> None:
    text = Page(page).text
    assert "q < 0.05 under permutations between whole videos (for places and times, by a t test over videos)" in text
    assert "that is masked in the nearest annotated frame and, where occluders are annotated, under one" in text
    name = f"features/{SAE_NAME}/config.json"
    write_json(copy / name, {**read_object(copy / name, ""), "arguments": {"fdr": 0.2}})
    assert "q < 0.2 under permutations" in Page(render(read_record(copy))).text


def test_labels_that_were_tested_are_told_from_candidates(copy: Path) -> None:
    name = f"features/{SAE_NAME}/associations.parquet"
    associations = tables()[name][1]
    n_tested = len({(row["label"], row["kind"], row["level"]) for row in associations})
    text = Page(render(read_record(copy))).text
    assert f"tested, with {n_tested} different labels" in text
    n_candidates = read_object(copy / f"features/{SAE_NAME}/summary.json", "")["n_labels"]
    assert f"were candidates, {n_candidates} in all; {n_tested} of them were tested" in text


@pytest.mark.parametrize("known", [True, False])
def test_what_is_detectable_is_said_only_of_what_enough_videos_show(copy: Path, known: bool) -> None:
    changed = tables()
    for row in changed[f"steer/{SAE_NAME}/summary.parquet"][1]:
        row["detectable"] = 0.15 if known else None
    write_tables(copy, changed)
    text = Page(render(read_record(copy))).text
    assert ("0.150 nats (median over the edited targets that enough videos show)" in text) == known
    assert ("in too few videos for a test to find any change" in text) != known


def test_the_page_says_how_a_latent_moves_the_count_and_by_which_rule(page: str) -> None:
    text = Page(page).text
    assert "How they do it" in text
    assert f"Latent {BALL} on questions about “object”" in text
    assert "At one event it is necessary: without it there, the expected count changes by −0.60" in text
    assert "Rule: rule of necessity." in text


def test_the_headline_says_what_was_found(page: str) -> None:
    headline = re.search(r"<h1>(.*?)</h1>", page)
    assert headline is not None
    assert headline[1] == (
        "2 latents follow one object or attribute with a held-out AUROC of 0.9 or more; 1 of 2 edited latents and the "
        "edited set move the answers to the questions about one subject, and others by a quarter of that at most."
    )


def test_names_from_outside_are_escaped(page: str) -> None:
    assert "<ball>" not in page
    assert "<run>" not in page
    assert "red &lt;ball&gt; &amp; co" in page


def test_the_same_run_gives_the_same_page(finished: Path, page: str) -> None:
    assert report(ReportConfig(run=finished)).read_text(encoding="utf-8") == page


def test_pictures_are_embedded_and_drawn_where_there_are_none(page: str) -> None:
    pictures = [attributes for tag, attributes in Page(page).elements if tag == "img"]
    assert [attributes["alt"] for attributes in pictures] == [
        f"Frames of video_5 with the activations of latent {latent}" for latent in (BALL, CUP)
    ]
    ours, drawn = ((attributes["width"], attributes["height"]) for attributes in pictures)
    assert ours == ("80", "20")
    assert drawn != ours  # by the features stage's own drawing, from the video


def test_no_file_from_elsewhere_gets_into_the_page(copy: Path) -> None:
    shutil.copy(copy / "features" / SAE_NAME / "media" / "ball.jpg", copy / "secret.jpg")
    shutil.rmtree(copy / "features" / SAE_NAME / "codes.zarr")  # so that nothing can be drawn anew
    changed = tables()
    _, exemplars = changed[f"features/{SAE_NAME}/exemplars.parquet"]
    exemplars[0]["media"] = "../../secret.jpg"
    write_tables(copy, changed)
    assert "<img" not in render(read_record(copy))


def test_a_run_without_findings_says_so(copy: Path) -> None:
    changed = tables()
    name = f"steer/{SAE_NAME}/summary.parquet"
    effects = [effect_row("3", "ablate", -0.1), effect_row("set", "ablate", 0.15)]
    changed[name] = (changed[name][0], effects)
    changed[f"steer/{SAE_NAME}/claims.parquet"] = (CLAIMS, claimed(effects))
    for table in ("catalogue", "associations"):
        for each in changed[f"features/{SAE_NAME}/{table}.parquet"][1]:
            each |= {"labelled": False} if table == "catalogue" else {"holds": False, "q_value": 0.4}
    write_tables(copy, changed)
    text = Page(render(read_record(copy))).text
    assert (
        "No latent was found to follow one object or attribute; "
        "no edited latent or set was found to move the counting answers more than matched controls do."
    ) in text
    assert "None of these associations holds" in text
    assert "No latent has a name" in text


def test_names_that_move_the_cursor_or_turn_text_round_are_shown_as_what_they_are(copy: Path) -> None:
    label = "red\nball\x1b[31m \u202eevil\x00"
    changed = tables()
    for table in ("catalogue", "associations"):
        for each in changed[f"features/{SAE_NAME}/{table}.parquet"][1]:
            each |= {name: label for name in ("label", "top_label") if each.get(name)}
    for table in ("summary", "controls", "targets", "claims", "target_subjects"):
        for each in changed[f"steer/{SAE_NAME}/{table}.parquet"][1]:
            each["target"] = f"set: {label}" if each["target"] == "set" else each["target"]
    changed[f"steer/{SAE_NAME}/targets.parquet"][1][-1] |= {"label": label, "label_kind": label}
    for row in changed["profile/profile.parquet"][1]:
        row["kind"] = {"object counting": label}.get(row["kind"], row["kind"])
    write_tables(copy, changed)
    page = render(read_record(copy))
    assert not set("\x1b\x00\u202e") & set(page)
    assert "red\\nball\\x1b[31m \\u202eevil\\x00" in page


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"run": "a b", "seed": 0, "latents": []}, "video-sae steer --run 'a b'"),
        ({"run": "r", "seed": 7, "latents": [3, 4], "sae": None}, "video-sae steer --run r --seed 7 --latents 3 4"),
        ({"run": "r", "operations": ["ablate", "scale:2"]}, "video-sae steer --run r"),
    ],
)
def test_the_command_of_a_stage(arguments: dict[str, Any], expected: str) -> None:
    stage = Stage(name="steer", folder=Path("x"), state="finished", config={"arguments": arguments})
    assert command(stage) == expected
