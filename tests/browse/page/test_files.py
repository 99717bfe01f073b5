"""The page's own files: what its markup and scripts may not hold, and what it brings along."""

import re
from pathlib import Path

import pytest

from tests.browse.page.synthetic import PAGE

ROOT = PAGE.parents[1]
SCRIPTS = sorted(PAGE.glob("*.js"))
INDEX = (PAGE / "index.html").read_text(encoding="utf-8")


def test_the_markup_has_no_inline_script_or_style() -> None:
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\sstyle=|\son\w+=", INDEX) == []


def test_every_script_and_style_is_loaded_and_there() -> None:
    loaded = set(re.findall(r'(?:src|href)="page/([^"]+)"', INDEX))
    assert all((PAGE / name).is_file() for name in loaded)
    ours = {path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.suffix in (".js", ".css", ".svg")}
    assert ours == loaded


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_never_parse_text_as_markup_or_code(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", source) == []
    )
    assert '"use strict";' in source


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


def test_the_vendored_library_is_of_the_pinned_version_and_has_its_licence() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    version = re.search(r"^UPLOT := (\S+)$", makefile, re.MULTILINE)
    assert version is not None
    assert f"(v{version[1]})" in (PAGE / "vendor" / "uPlot.iife.min.js").read_text(encoding="utf-8")[:200]
    assert "MIT" in (PAGE / "vendor" / "uPlot-LICENSE.txt").read_text(encoding="utf-8")


def test_nothing_is_fetched_from_elsewhere() -> None:
    for path in [*SCRIPTS, *PAGE.glob("*.css"), PAGE / "index.html"]:
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", path.read_text(encoding="utf-8")))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path
