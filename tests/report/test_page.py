"""The page: complete, self-contained, escaped, true to the tables, and clear about what is missing."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from collect.artefact.folder import write_atomic
from collect.errors import UserError
from report.config import ReportConfig
from report.page import command, render, report
from report.record import Stage, read_record
from tests.small_run import SAE_NAME
from tests.steer.finished_run import BALL, CUP, effect_row, finish_run, tables, write_tables

VOID = {"meta", "img", "br", "link", "input", "hr"}
SHAPES = {"line", "rect", "circle", "polyline"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, collected: Path, data_folder: Path) -> Path:
    return finish_run(collected, data_folder, tmp_path_factory.mktemp("report") / "my <run>")


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    path = report(ReportConfig(run=finished))
    assert path == finished / "report" / "index.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


class Page(HTMLParser):
    """Checks that every element is closed, and keeps elements and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SHAPES
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    parsed = Page(page)
    assert {tag for tag, _ in parsed.elements}.isdisjoint({"script", "link", "iframe", "object", "a"})
    for tag, attributes in parsed.elements:
        assert not any(name.startswith("on") for name in attributes), tag
        assert str(attributes.get("src", "data:image/")).startswith("data:image/"), tag
    assert re.search(r"https?://|@import|url\(", page) is None


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


def test_the_headline_says_what_was_found(page: str) -> None:
    headline = re.search(r"<h1>(.*?)</h1>", page)
    assert headline is not None
    assert headline[1] == (
        "2 latents follow one object with a held-out AUROC of 0.9 or more; "
        "1 of 2 edited latents and the edited set move the counting answers more than matched controls do."
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
    changed[name] = (changed[name][0], [effect_row("3", "ablate", -0.1), effect_row("set", "ablate", 0.15)])
    for table in ("catalogue", "associations"):
        for each in changed[f"features/{SAE_NAME}/{table}.parquet"][1]:
            each |= {"labelled": False} if table == "catalogue" else {"holds": False, "q_value": 0.4}
    write_tables(copy, changed)
    text = Page(render(read_record(copy))).text
    assert (
        "No latent follows one object; "
        "no edited latent or set moves the counting answers more than matched controls do."
    ) in text
    assert "None of these associations holds" in text
    assert "No latent has a label that holds" in text


@pytest.mark.parametrize(
    ("folder", "stage", "gone"),
    [
        ("profile", "profile", "Site profile"),
        (f"features/{SAE_NAME}", "features", "Associations on held-out videos"),
        (f"steer/{SAE_NAME}", "steer", "What latents do to the answers"),
    ],
)
def test_a_missing_stage_is_named(copy: Path, folder: str, stage: str, gone: str) -> None:
    shutil.rmtree(copy / folder)
    text = Page(render(read_record(copy))).text
    assert f"The stage {stage} is missing" in text
    assert gone not in text


@pytest.mark.parametrize(
    ("name", "said", "gone"),
    [
        ("profile/profile.parquet", "this page has no site profile", "Site profile"),
        (f"sae/{SAE_NAME}/metrics.jsonl", "no chart of the training", "Figures of the training batches"),
        (f"sae/{SAE_NAME}/config.json", "does not say how that stage was run", "video-sae train --run"),
        (f"features/{SAE_NAME}/catalogue.parquet", "does not show what latents respond to", "What latents respond to"),
        (f"features/{SAE_NAME}/associations.parquet", "it lists no associations", "controls’ 95th, best"),
        (f"features/{SAE_NAME}/exemplars.parquet", "it has no pictures", "activation 1.50"),
        (f"steer/{SAE_NAME}/items.parquet", "the model’s answers are not shown", "[50 %, 100 %]"),
        (f"steer/{SAE_NAME}/baselines.parquet", "the model’s answers are not shown", "Kind of question"),
        (f"steer/{SAE_NAME}/screen.parquet", "how many latents were screened", "of the 24 that fire"),
        (f"steer/{SAE_NAME}/controls.parquet", "single controls are not drawn", "nothing"),
        (
            f"steer/{SAE_NAME}/summary.parquet",
            "the effects of latents are not shown",
            "q: sign-flip test over videos, X",
        ),
    ],
)
def test_a_missing_file_is_named_and_the_rest_is_shown(
    copy: Path, name: str, said: str, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    (copy / name).unlink()
    text = Page(report(ReportConfig(run=copy)).read_text(encoding="utf-8")).text
    assert re.search(rf"{re.escape(name)} is missing, so [^.]*{said}: run", text)
    assert f"{name} is missing" in caplog.text
    assert gone not in text
    assert "What was not tested" in text


def test_tables_without_rows_leave_the_rest(copy: Path) -> None:
    write_tables(copy, {name: (schema, []) for name, (schema, _) in tables().items()})
    text = Page(render(read_record(copy))).text
    assert "catalogue.parquet has no rows, so this page does not show what latents respond to" in text
    assert "There are no effects of the steer stage" in text
    assert "There are no answers of the steer stage" in text
    assert "Sparse autoencoder" in text


def test_without_activations_pictures_that_are_there_are_shown_and_others_are_named(copy: Path) -> None:
    shutil.rmtree(copy / "activations")
    page = Page(render(read_record(copy)))
    assert "The stage collect is missing" in page.text
    assert f"pictures of the latents {CUP} could be drawn: the activations are not there" in page.text
    assert [attributes["width"] for tag, attributes in page.elements if tag == "img"] == ["80"]


def test_a_compressed_archive_in_the_activations_place_is_named(copy: Path) -> None:
    manifest = json.loads((copy / "activations" / "manifest.json").read_text())
    write_atomic(copy / "activations" / "manifest.json", json.dumps({**manifest, "archived": manifest["format"]}))
    text = Page(render(read_record(copy))).text
    assert "activations/manifest.json is that of an archive" in text
    assert "video-sae archive --restore" in text


def test_missing_videos_and_codes_cost_the_pictures_only(copy: Path, data_folder: Path) -> None:
    video = data_folder / "videos" / "video_5.mp4"
    aside = video.rename(data_folder / "aside.mp4")
    try:
        text = Page(render(read_record(copy))).text
    finally:
        aside.rename(video)
    assert "There are no pictures of the video video_5: it is not there or cannot be decoded." in text
    assert "No pictures of this latent" in text
    shutil.rmtree(copy / "features" / SAE_NAME / "codes.zarr")
    assert f"pictures of the latents {CUP} could be drawn: {copy}" in Page(render(read_record(copy))).text


@pytest.mark.parametrize("place", [0, 40, 300, -30])
def test_a_damaged_picture_is_named_and_drawn_anew(copy: Path, place: int) -> None:
    path = copy / "features" / SAE_NAME / "media" / "ball.jpg"
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)
    page = Page(render(read_record(copy)))
    assert "media/ball.jpg" in page.text
    assert "run `video-sae features` again to draw it" in page.text
    widths = [attributes["width"] for tag, attributes in page.elements if tag == "img"]
    assert len(widths) == 2
    assert "80" not in widths


def test_names_that_move_the_cursor_or_turn_text_round_are_shown_as_what_they_are(copy: Path) -> None:
    label = "red\nball\x1b[31m \u202eevil\x00"
    changed = tables()
    for table in ("catalogue", "associations"):
        for each in changed[f"features/{SAE_NAME}/{table}.parquet"][1]:
            each |= {name: label for name in ("label", "top_label") if each.get(name)}
    for table in ("summary", "controls", "targets"):
        for each in changed[f"steer/{SAE_NAME}/{table}.parquet"][1]:
            each["target"] = f"set: {label}" if each["target"] == "set" else each["target"]
    changed[f"steer/{SAE_NAME}/targets.parquet"][1][-1] |= {"label": label, "label_kind": label}
    for row in changed["profile/profile.parquet"][1]:
        row["kind"] = {"object counting": label}.get(row["kind"], row["kind"])
    write_tables(copy, changed)
    page = render(read_record(copy))
    assert not set("\x1b\x00\u202e") & set(page)
    assert "red\\nball\\x1b[31m \\u202eevil\\x00" in page


def test_rows_that_do_not_fit_each_other_are_refused(copy: Path) -> None:
    for table, column, value in (
        (f"steer/{SAE_NAME}/summary.parquet", "target", "9" * 400),
        (f"steer/{SAE_NAME}/summary.parquet", "target", "24"),
        (f"steer/{SAE_NAME}/summary.parquet", "latents", [4]),
        (f"steer/{SAE_NAME}/controls.parquet", "target", "24"),
        (f"steer/{SAE_NAME}/targets.parquet", "target", "7"),
        (f"steer/{SAE_NAME}/targets.parquet", "latents", [24]),
        (f"steer/{SAE_NAME}/targets.parquet", "latents", []),
        (f"steer/{SAE_NAME}/summary.parquet", "operation", "explode"),
        (f"steer/{SAE_NAME}/summary.parquet", "latents", []),
        (f"steer/{SAE_NAME}/summary.parquet", "delta_margin", 1e200),
        (f"steer/{SAE_NAME}/controls.parquet", "delta_margin", float("inf")),
        ("profile/profile.parquet", "site", "elsewhere"),
        (f"features/{SAE_NAME}/catalogue.parquet", "latent", 3000),
        (f"features/{SAE_NAME}/associations.parquet", "latent", 3000),
        (f"features/{SAE_NAME}/exemplars.parquet", "latent", 3000),
    ):
        changed = tables()[table]
        changed[1][0][column] = value
        write_tables(copy, {table: changed})
        with pytest.raises(UserError, match=re.escape(Path(table).name)):
            read_record(copy)
        write_tables(copy, {table: tables()[table]})


@pytest.mark.parametrize("column", ["t", "row", "col", "video_id"])
def test_an_exemplar_that_is_nowhere_is_named(copy: Path, column: str) -> None:
    changed = tables()
    changed[f"features/{SAE_NAME}/exemplars.parquet"][1][1][column] = "nowhere" if column == "video_id" else 900
    write_tables(copy, changed)
    assert "is not among the stored activations" in Page(render(read_record(copy))).text


def test_an_unfinished_stage_is_named(copy: Path) -> None:
    (copy / "steer" / SAE_NAME / "summary.json").unlink()
    text = Page(render(read_record(copy))).text
    assert "The stage steer is not finished" in text
    assert "effects on the answers were not compared with controls" in text


def test_activations_alone_make_a_page(collected: Path, tmp_path: Path) -> None:
    shutil.copytree(collected / "activations", tmp_path / "run" / "activations")
    text = Page(report(ReportConfig(run=tmp_path / "run")).read_text(encoding="utf-8")).text
    assert [stage for stage in ("profile", "train", "features", "steer") if f"stage {stage} is missing" in text] == [
        "profile",
        "train",
        "features",
        "steer",
    ]


def test_an_empty_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} holds no finished stage .* run `video-sae collect"):
        report(ReportConfig(run=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_one_of_several_saes_must_be_named(copy: Path) -> None:
    shutil.copytree(copy / "sae" / SAE_NAME, copy / "sae" / "second")
    with pytest.raises(UserError, match=r"several SAEs .* name one with --sae"):
        report(ReportConfig(run=copy))
    assert report(ReportConfig(run=copy, sae=SAE_NAME)).is_file()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (f"sae/{SAE_NAME}/summary.json", "[1", r"summary\.json is not valid JSON"),
        (f"sae/{SAE_NAME}/metrics.jsonl", "{\n", r"metrics\.jsonl, line 1, is not valid JSON"),
        (f"features/{SAE_NAME}/catalogue.parquet", "text", r"catalogue\.parquet cannot be read as parquet"),
    ],
)
def test_a_damaged_artefact_is_named(copy: Path, name: str, content: str, message: str) -> None:
    (copy / name).write_text(content)
    write_atomic(copy / "report" / "index.html", "an earlier page")
    with pytest.raises(UserError, match=message):
        report(ReportConfig(run=copy))
    assert (copy / "report" / "index.html").read_text() == "an earlier page"


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
