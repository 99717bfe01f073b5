"""The page as the server gives it: under its security policy, with notes that outlive the server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browse.page.chromium import opened, settled, show, until
from tests.browse.page.served import serving
from tests.browse.page.synthetic import SAE

sync = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

LATENT = f"#/{SAE}/latent/12"
VIEWS = (
    "#/",
    LATENT,
    f"#/video/video_1?sae={SAE}",
    "#/tasks",
    "#/task/0",
    "#/compare",
    f"#/blind/{SAE}",
    f"#/debt/{SAE}/label 0: something that is going on",
)


@pytest.fixture
def address(site: Path, tmp_path: Path) -> Iterator[str]:
    with serving(site, tmp_path / "notes") as (made, _):
        yield made


def test_every_view_works_under_the_security_policy(page: Any, address: str) -> None:
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text) if "Content Security" in message.text else None)
    for hash_ in VIEWS:
        show(page, address, hash_)
        assert page.locator(".empty:visible").count() == 0, hash_
    assert refused == []
    assert page.evaluate("videoSae.state.session.served") is True


def test_the_policy_stops_scripts_in_markup(browser: Any, address: str) -> None:
    page = browser.new_page()
    show(page, address, LATENT)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.hit = 1\">')")
    page.wait_for_timeout(100)
    assert page.evaluate("window.hit") is None
    page.close()


def test_a_served_clip_plays_and_seeks_by_ranges(page: Any, address: str) -> None:
    answers: list[int] = []
    page.on("response", lambda answer: answers.append(answer.status) if answer.url.endswith(".mp4") else None)
    show(page, address, LATENT)
    until(page, "document.querySelector('.stage video').readyState >= 3")
    page.evaluate("document.querySelector('.stage video').pause()")
    page.evaluate("document.querySelector('.stage video').currentTime = 2.5")
    until(page, "Math.abs(document.querySelector('.stage video').currentTime - 2.5) < 0.01")
    assert 206 in answers


def write_note(page: Any, text: str) -> None:
    page.get_by_label("Your note on this latent").fill(text)
    page.keyboard.press("Control+Enter")


def test_notes_outlive_a_killed_server(browser: Any, site: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with opened(browser) as page, serving(site, notes) as (address, process):
        show(page, address, LATENT)
        page.get_by_label("Your name for this latent").fill("zeppelin")
        page.keyboard.press("Enter")
        write_note(page, "first")
        sync.expect(page.get_by_text("Saved in the run")).to_have_count(2)
        process.kill()
        process.wait()
    with opened(browser) as page, serving(site, notes) as (address, _):
        show(page, address, LATENT)
        assert page.get_by_label("Your name for this latent").input_value() == "zeppelin"
        assert page.get_by_label("Your note on this latent").input_value() == "first"
        show(page, address, "#/")
        page.get_by_label("Search latents").fill("zeppelin")
        sync.expect(page.locator(".grid-row")).to_have_count(1)
        sync.expect(page.locator(".grid-row")).to_have_attribute("data-latent", "12")


def test_two_people_lose_nothing(browser: Any, address: str) -> None:
    with opened(browser) as one, opened(browser) as two:
        for page in (one, two):
            show(page, address, LATENT)
        write_note(one, "what one says")
        sync.expect(one.get_by_text("Saved in the run")).to_be_visible()
        write_note(two, "what two says")
        sync.expect(two.get_by_text("Somebody else saved “what one says”")).to_be_visible()
        assert two.get_by_label("Your note on this latent").input_value() == "what two says"
        write_note(two, "what one says, and two")
        sync.expect(two.get_by_text("Saved in the run")).to_be_visible()
        one.reload()
        settled(one)
        assert one.get_by_label("Your note on this latent").input_value() == "what one says, and two"


def test_judgements_and_views_are_kept_in_the_run(browser: Any, site: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with opened(browser) as page, serving(site, notes) as (address, _):
        show(page, address, f"#/debt/{SAE}/label 0: something that is going on")
        page.keyboard.press("y")
        sync.expect(page.locator(".caption").first).to_contain_text("2 of 10")
        show(page, address, f"#/{SAE}/latents?sort=firing_rate")
        page.get_by_role("button", name="Views").click()
        page.get_by_label("Name of the view").fill("sparse")
        page.get_by_role("button", name="Save").click()
        sync.expect(page.locator(".popover:visible")).to_have_count(0)
    with opened(browser) as page, serving(site, notes) as (address, _):
        show(page, address, f"#/debt/{SAE}")
        assert page.locator("tbody tr").first.inner_text().split("\t")[-1] == "1"
        show(page, address, "#/")
        page.get_by_role("button", name="Views").click()
        page.get_by_role("link", name="sparse").click()
        sync.expect(page.locator("[aria-sort=ascending]")).to_contain_text("Firing rate")


def test_a_note_that_cannot_be_saved_is_said_so_and_stays(browser: Any, site: Path, tmp_path: Path) -> None:
    with opened(browser) as page, serving(site, tmp_path / "notes") as (address, process):
        show(page, address, LATENT)
        process.kill()
        process.wait()
        page.evaluate("() => { window.fetch = () => Promise.reject(new Error('no server')) }")
        write_note(page, "still here")
        sync.expect(page.get_by_text("Not saved: no server")).to_be_visible()
        assert page.get_by_label("Your note on this latent").input_value() == "still here"


def test_served_and_exported_pages_are_the_same_files(page: Any, address: str, site: Path) -> None:
    for file in ("index.html", "page/core.js", "page/theme.css", "shards/run.js", f"shards/{SAE}/latents.js"):
        assert page.request.get(f"{address}{file}").body() == (site / file).read_bytes(), file
