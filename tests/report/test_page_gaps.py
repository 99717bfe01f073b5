"""A page of a run with parts missing or damaged: what is missing is named, and the rest is shown."""

import json
import re
import shutil
from pathlib import Path

import pytest

from collect.artefact.folder import read_object, write_atomic, write_json
from collect.errors import UserError
from report.config import ReportConfig
from report.page import render, report
from report.record import read_record
from tests.report.parsed_page import Page
from tests.small_run import SAE_NAME
from tests.steer.finished_run import CUP, tables, write_tables


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
        (f"steer/{SAE_NAME}/screens.parquet", "how far the screens can be trusted", "among their own leaders"),
        (f"steer/{SAE_NAME}/controls.parquet", "single controls are not drawn", "nothing"),
        (f"steer/{SAE_NAME}/claims.parquet", "nothing is claimed about effects", "None of"),
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


def test_pictures_are_drawn_from_wherever_the_page_is_made(
    copy: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (f"features/{SAE_NAME}", "activations"):
        config = read_object(copy / stage / "config.json", "")
        config["arguments"] |= {"data": "relative/data"}
        write_json(copy / stage / "config.json", {**config, "paths": {"data": str(data_folder)}})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    page = Page(render(read_record(copy)))
    assert "could be drawn" not in page.text
    assert len([tag for tag, _ in page.elements if tag == "img"]) == 2


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
