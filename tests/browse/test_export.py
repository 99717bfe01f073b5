"""The export: the same shards and media as served, within its bounds, and over nothing else."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from browse.export import EXPORT_NAME, export
from browse.gathering.library import Library
from browse.gathering.opened import OpenedRun
from browse.notes import Notes
from browse.shards import decode
from browse.sources import FolderSource
from collect.errors import UserError
from tests.browse.conftest import serving
from tests.small_run import D_SAE, SAE_NAME
from tests.steer.finished_run import BALL, CUP

ROOT = Path(__file__).resolve().parents[2]


def write(run: Path, folder: Path, *, media: int = 1 << 30, **more: int) -> Path:
    return export(Library(OpenedRun(run)), folder, notes=Notes(run / "notes"), most_media_bytes=media, **more)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".lock") and "sentinel" not in path.name
    }


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "page"
    assert write(finished, folder) == folder / "index.html"
    return folder


def test_shards_are_those_that_are_served(exported: Path, copy: Path) -> None:
    with serving(copy) as running, running.client() as client:
        for path in sorted((exported / "shards").rglob("*.js")):
            name = path.relative_to(exported).as_posix()
            if name == "shards/notes.js":
                continue
            served = client.get(f"/{name}").content
            if name == "shards/run.js":  # which says what the folder is called
                assert decode(served)[1].meta["saes"] == decode(path.read_bytes())[1].meta["saes"]
            else:
                assert served == path.read_bytes(), name


def test_everything_that_shards_name_is_there(exported: Path) -> None:
    page = decode((exported / "shards" / SAE_NAME / "latent" / "0.js").read_bytes())[1].columns["json"].values
    named = {moment[kind] for latent in page for moment in latent["moments"] for kind in ("media", "still")}
    assert named
    for name in named:
        assert (exported / name).is_file(), name
    videos = decode((exported / "shards" / "videos.js").read_bytes())[1].columns["key"].values
    for key in videos:
        assert (exported / "shards" / "video" / f"{key}.js").is_file()
        assert (exported / "media" / "clips" / f"{key}.mp4").is_file()
    assert (exported / "index.html").is_file()


def test_an_export_can_be_served_from_its_folder(exported: Path, copy: Path) -> None:
    with serving(copy, source=FolderSource(exported / "shards")) as running, running.client() as client:
        assert client.get(f"/api/latents/{SAE_NAME}/{BALL}").json()["latent"] == BALL
        assert client.get("/shards/nothing.js").status_code == 404


def test_notes_are_in_the_export_as_they_were(copy: Path, tmp_path: Path) -> None:
    Notes(copy / "notes").write("note", f"{SAE_NAME}:3", "a note", 0)
    write(copy, tmp_path / "page", media=0)
    notes = decode((tmp_path / "page" / "shards" / "notes.js").read_bytes())[1].meta
    assert notes == Notes(copy / "notes").merged()


def test_without_media_moments_have_none(copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    write(copy, folder, media=0)
    assert not (folder / "media").exists()
    page = decode((folder / "shards" / SAE_NAME / "latent" / "0.js").read_bytes())[1].columns["json"].values
    assert {moment["media"] for latent in page for moment in latent["moments"]} == {None}
    assert decode((folder / "shards" / "run.js").read_bytes())[1].meta["has_media"] is False


def test_media_stay_within_their_bytes(copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "page"
    write(copy, folder)
    clips = sorted((folder / "media" / "clips").glob("*.mp4"))
    one = sum(path.stat().st_size for path in (folder / "media").rglob("*") if path.is_file()) // len(clips)
    small = tmp_path / "small"
    with caplog.at_level(logging.WARNING):
        write(copy, small, media=3 * one)
    kept = [path for path in (small / "media").rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in kept) <= 3 * one
    assert "--cache-gb" in caplog.text
    page = decode((small / "shards" / SAE_NAME / "latent" / "0.js").read_bytes())[1].columns["json"].values
    named = {moment["media"] for latent in page for moment in latent["moments"]} - {None}
    assert named == {path.relative_to(small).as_posix() for path in kept if path.suffix == ".mp4"}


def test_shards_stay_within_their_bytes_and_tell_named_and_edited_latents_in_full(
    copy: Path, exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = sum(path.stat().st_size for path in (exported / "shards").rglob("*.js"))
    folder = tmp_path / "small"
    most = whole * 6 // 10
    with caplog.at_level(logging.INFO):
        write(copy, folder, media=0, most_shard_bytes=most)
    assert sum(path.stat().st_size for path in (folder / "shards").rglob("*.js")) <= most
    page = decode((folder / "shards" / SAE_NAME / "latent" / "0.js").read_bytes())[1].columns["json"].values
    detail = {latent["latent"]: latent["detail"] for latent in page}
    assert len(detail) == D_SAE
    assert "brief" in detail.values()
    assert {detail[BALL], detail[CUP]} == {"full"}
    shortest = next(latent for latent in page if latent["detail"] == "brief" and latent["moments"])
    assert {group["group"] for group in shortest["groups"]} >= {"top", "random"}
    assert "told in brief" in caplog.text


def test_a_bound_that_nothing_fits_leaves_shards_out_and_says_so(
    copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        write(copy, tmp_path / "tiny", media=0, most_shard_bytes=8000)
    assert "left out of the export" in caplog.text
    assert sum(path.stat().st_size for path in (tmp_path / "tiny" / "shards").rglob("*.js")) <= 8000


def test_an_export_is_written_over_and_nothing_else_is(copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    write(copy, folder)
    before = files(folder)
    stale = folder / "shards" / "old" / "latents.js"
    stale.parent.mkdir()
    stale.write_text("old")
    write(copy, folder)
    assert files(folder) == before
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    write(copy, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == times
    Notes(copy / "notes").write("note", "a", "b", 0)
    write(copy, folder)
    assert files(folder) != before
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("precious")
    with pytest.raises(UserError, match=r"chapter\.tex"):
        write(copy, other)
    assert [path.name for path in other.iterdir()] == ["chapter.tex"]


@pytest.mark.slow
def test_an_export_that_was_killed_is_finished_by_the_next(copy: Path, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    command = [sys.executable, "-m", "video_sae", "browse", "--run", str(copy), "--export", str(folder)]
    for until in (folder / EXPORT_NAME, folder / "media" / "clips", folder / "shards" / "run.js"):
        with subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.DEVNULL) as program:
            while program.poll() is None and not until.exists():
                time.sleep(0.01)
            program.send_signal(signal.SIGKILL)
    assert subprocess.run(command, cwd=ROOT, env=os.environ, stderr=subprocess.DEVNULL, check=False).returncode == 0
    found, wanted = files(folder), files(exported)
    assert set(found) == set(wanted)
    for name, content in wanted.items():
        # Sentinels say when the video's file was changed, so does the state that export.json is of, and the run's name
        # is its folder's.
        if name not in ("shards/run.js", EXPORT_NAME) and not (name.startswith("media/") and name.endswith(".json")):
            assert found[name] == content, name
    said = json.loads((folder / EXPORT_NAME).read_text())
    assert (said["format"], said["n_files"]) == ("video-sae browse", len(wanted) - 1)
    assert "of" in said
