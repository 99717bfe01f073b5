"""What the page looks like for everyone: contrast, names of controls, narrow and wide windows, and hostile text."""

from pathlib import Path
from typing import Any

import pytest

from tests.browse.page.chromium import index_of, opened, show
from tests.browse.page.shard_writer import write_shard
from tests.browse.page.synthetic import SAE, about, copy_page, make_site, run_meta

sync = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

LABEL = "label 0: something that is going on"
PAGES = {
    "latents": f"#/{SAE}/latents?f=effect:le:0.5&at=12", "latent": f"#/{SAE}/latent/12", "videos": "#/videos",
    "video": f"#/video/video_1?sae={SAE}&latent=3", "tasks": "#/tasks", "task": "#/task/1",
    "compare": f"#/compare/{SAE}:5/{SAE}:12",
    "blind": f"#/blind/{SAE}", "debt": f"#/debt/{SAE}", "judge": f"#/debt/{SAE}/{LABEL}", "lost": "#/x/y/z",
}  # fmt: skip

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")

NAMELESS = (Path(__file__).parent / "nameless.js").read_text(encoding="utf-8")
HOT = (Path(__file__).parent / "hot_pixels.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_has_enough_contrast(browser: Any, site: Path, dark: bool) -> None:
    with opened(browser, dark=dark) as page:
        for name, hash_ in PAGES.items():
            show(page, index_of(site), hash_)
            assert page.evaluate(CONTRAST) == [], name


def test_the_check_of_contrast_finds_too_little(page: Any, site: Path) -> None:
    show(page, index_of(site))
    page.add_style_tag(content=".toolbar .total { color: #999 !important }")
    assert page.evaluate(CONTRAST)


def test_every_control_has_a_name(page: Any, site: Path) -> None:
    for name, hash_ in PAGES.items():
        show(page, index_of(site), hash_)
        assert page.evaluate(NAMELESS) == [], name


@pytest.mark.parametrize(("width", "height"), [(400, 800), (768, 1024), (1280, 720), (3840, 2160)])
def test_nothing_is_wider_than_the_window(browser: Any, site: Path, width: int, height: int) -> None:
    with opened(browser, width=width, height=height) as page:
        for name, hash_ in PAGES.items():
            show(page, index_of(site), hash_)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_the_theme_is_chosen_and_remembered(page: Any, site: Path) -> None:
    show(page, index_of(site))
    colour = "getComputedStyle(document.querySelector('.table-side')).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Light or dark").click()
    dark = page.evaluate(colour)
    assert light != dark
    show(page, index_of(site))
    assert page.evaluate(colour) == dark


HOSTILE = [
    "<script>window.hit = 1</script>", "<img src=x onerror='window.hit = 1'>", "\u202egnp.elif\u202c and so on",
    "תווית ארוכה: מישהו מזיז כדור", "a" * 300, "&lt;b&gt;", "'\"><svg onload=window.hit=1>", "line\nbreak\u0000null",
    "../../etc/passwd", "%2e%2e/%00", "{{7*7}} ${window.hit=1}", "javascript:window.hit=1",
]  # fmt: skip


def test_hostile_labels_stay_text_everywhere(browser: Any, tmp_path: Path) -> None:
    site = make_site(tmp_path, labels=HOSTILE)
    with opened(browser) as page:
        pages = {
            **PAGES,
            "judge": f"#/debt/{SAE}/%3Cscript%3Ewindow.hit%20%3D%201%3C%2Fscript%3E",
            "odd": "#/%3Cimg%20src%3Dx%20onerror%3Dwindow.hit%3D1%3E/latents",
        }
        for name, hash_ in pages.items():
            show(page, index_of(site), hash_)
            page.wait_for_timeout(60)
            assert page.evaluate("window.hit") is None, name
            assert (
                page.evaluate("document.querySelectorAll('body script, [onerror], [onload], img[src=x]').length") == 0
            ), name
            assert page.evaluate("document.documentElement.scrollWidth") <= 1280, name
        show(page, index_of(site), f"#/{SAE}/latents?q=script")
        assert "<script>" in page.locator(".grid-row .label").first.inner_text()
        # The direction of a label is its own: what stands beside it is not turned round.
        show(page, index_of(site), f"#/debt/{SAE}")
        for cell in page.locator("tbody td.words bdi").all():
            assert cell.evaluate("node => getComputedStyle(node).unicodeBidi") == "isolate"
        page.get_by_role("link", name="<script>").click()
        sync.expect(page.locator(".caption").first).to_contain_text("1 of 10")


def empty_site(folder: Path, **changes: Any) -> str:
    copy_page(folder)
    write_shard(folder, "run", {}, run_meta([], n_videos=0) | changes)
    return index_of(folder)


def test_a_run_without_an_sae_says_what_to_do(page: Any, tmp_path: Path) -> None:
    address = empty_site(tmp_path)
    for hash_, text in (
        ("#/", "This run has no SAE yet."),
        ("#/videos", "No videos yet."),
        ("#/tasks", "No tasks yet."),
        ("#/compare", "Nothing to compare."),
        ("#/blind", "No blind test"),
        ("#/debt", "No labelled latents."),
        ("#/video/x", "Nothing is known of this video."),
    ):
        show(page, address, hash_)
        sync.expect(page.get_by_text(text).first).to_be_visible()


def test_a_run_that_is_being_written_shows_what_there_is(page: Any, tmp_path: Path) -> None:
    saes = [about("early", 10, baseline=None) | {"has_effects": False, "has_annotations": False}]
    stages = [{"stage": "collect", "state": "finished"}, {"stage": "features", "state": "unfinished"}]
    address = empty_site(tmp_path, saes=saes, stages=stages)
    show(page, address)
    sync.expect(page.get_by_text("This SAE has no table of latents yet.")).to_be_visible()
    # A shard without rows that says why.
    write_shard(tmp_path, "early/latents", {}, {"error": "catalogue.parquet is damaged: run features again."})
    show(page, address)
    sync.expect(page.get_by_text("catalogue.parquet is damaged")).to_be_visible()


def test_a_page_without_data_says_so(page: Any, tmp_path: Path) -> None:
    copy_page(tmp_path)
    show(page, index_of(tmp_path))
    sync.expect(page.get_by_text("This page has no data.")).to_be_visible()


def test_a_latent_without_effects_annotations_clips_or_stills(page: Any, tmp_path: Path) -> None:
    site = make_site(tmp_path, n_latents=3)
    for file in (tmp_path / "media").rglob("*.*"):
        file.unlink()
    show(page, index_of(site), f"#/{SAE}/latent/1")
    sync.expect(page.get_by_text("This clip cannot be played here.")).to_be_visible()
    assert page.evaluate(HOT) > 0


def test_three_latents_are_enough(page: Any, tmp_path: Path) -> None:
    site = make_site(tmp_path, n_latents=3, n_labels=2)
    show(page, index_of(site))
    sync.expect(page.locator(".grid-row")).to_have_count(3)
