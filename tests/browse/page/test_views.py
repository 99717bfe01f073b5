"""The pages on videos, tasks and pairs of latents."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.browse.page.chromium import index_of, settled, show, until
from tests.browse.page.synthetic import FPS, SAE

sync = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

HOT = (Path(__file__).parent / "hot_pixels.js").read_text(encoding="utf-8")
VIDEO = f"#/video/video_1?sae={SAE}&latent=3"


def test_videos_are_listed_sorted_and_opened(page: Any, site: Path) -> None:
    show(page, index_of(site), "#/videos")
    assert page.locator(".grid-row").evaluate_all("rows => rows.map(row => row.dataset.latent)") == [
        "video_0",
        "video_1",
        "video_2",
    ]
    page.get_by_role("columnheader").filter(has_text="Video").get_by_role("button").click()
    sync.expect(page.locator(".grid-row").first).to_have_attribute("data-latent", "video_2")
    page.locator(".grid-row").first.click()
    page.wait_for_url("**/video/video_2*")


def test_the_heat_is_that_of_the_chosen_latent(page: Any, site: Path) -> None:
    show(page, index_of(site), VIDEO)
    rows = page.locator(".firing-row")
    assert rows.count() == 40
    sync.expect(page.locator('.firing-row[data-latent="3"]')).to_have_attribute("aria-selected", "true")
    until(page, "document.querySelector('.stage video').readyState >= 3")
    page.keyboard.press("b")
    assert page.evaluate(HOT) > 0
    page.keyboard.press("h")
    assert page.evaluate(HOT) == 0
    page.keyboard.press("j")
    sync.expect(page.locator('.firing-row[data-latent="4"]')).to_have_attribute("aria-selected", "true")
    assert "latent=4" in page.evaluate("location.hash")


def test_a_time_has_a_permalink_and_keys_go_frame_by_frame(page: Any, site: Path) -> None:
    show(page, index_of(site), VIDEO + "&t=1.50")
    until(page, "Math.abs(document.querySelector('.stage video').currentTime - 1.5) < 0.01")
    page.keyboard.press("ArrowRight")
    until(page, f"Math.abs(document.querySelector('.stage video').currentTime - {1.5 + 1 / FPS}) < 0.01")
    until(page, "/[?&]t=1.5[34]/.test(location.hash)")


def test_questions_show_what_the_model_said_with_and_without_edits(page: Any, site: Path) -> None:
    show(page, index_of(site), VIDEO + "&item=video_1-q1")
    right, wrong = page.locator(".question").all()
    assert "right" in right.inner_text()
    assert "margin +1.40" in right.inner_text()
    assert "wrong" in wrong.inner_text()
    assert "current" in wrong.get_attribute("class")
    assert "annotated" in wrong.locator(".options li").nth(0).inner_text()
    assert "the model's answer" in wrong.locator(".options li").nth(1).inner_text()
    assert "−1.30" in wrong.locator("table").inner_text()


def test_the_timeline_seeks(page: Any, site: Path) -> None:
    show(page, index_of(site), VIDEO)
    until(page, "document.querySelector('.stage video').readyState >= 3")
    line = page.get_by_role("slider")
    width = line.bounding_box()["width"]
    line.click(position={"x": 8 + (width - 16) / 2, "y": 20})
    until(page, "Math.abs(document.querySelector('.stage video').currentTime - 1.5) < 0.03")
    sync.expect(line).to_have_attribute("aria-valuetext", re.compile(r"1\.5\d seconds"))


def test_tasks_lead_to_their_items_and_latents(page: Any, site: Path) -> None:
    show(page, index_of(site), "#/tasks")
    assert page.locator("tbody tr").count() == 3
    page.locator("tbody a").nth(1).click()
    page.wait_for_url("**/task/1")
    settled(page)
    assert page.locator(".item").count() == 9
    page.get_by_role("button", name="Wrong 3").click()
    sync.expect(page.locator(".item")).to_have_count(3)
    assert page.locator(".item.wrong").count() == 3
    assert "show=wrong" in page.evaluate("location.hash")
    page.go_back()
    sync.expect(page.locator(".item")).to_have_count(9)
    assert page.locator(".claimed-row").count() == 3
    sync.expect(page.locator(".claimed-row").first.locator(".tile")).to_have_count(4)
    page.locator(".item").first.click()
    page.wait_for_url("**/video/video_0*item=video_0-q0*")


def test_two_latents_stand_side_by_side(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/compare/{SAE}:5/{SAE}~baseline:9")
    sides = page.locator(".compare-side")
    assert sides.nth(0).locator("h2").first.inner_text().startswith("Latent 5")
    assert sides.nth(1).locator("h2").first.inner_text().startswith("Latent 9")
    assert page.get_by_label("Second SAE").input_value() == f"{SAE}~baseline"
    page.get_by_label("Second SAE").select_option(SAE)
    page.wait_for_url(f"**/compare/{SAE}:5/{SAE}:9")
    settled(page)
    page.get_by_label("Second latent").fill("12")
    page.get_by_label("Second latent").press("Enter")
    page.wait_for_url(f"**/{SAE}:12")
    settled(page)
    # Latent 12 is the nearest decoder direction of latent 5 in the made-up run: 5 + 7, cosine 0.9 - 1/8.
    sync.expect(page.locator(".verdict")).to_contain_text("cosine of decoder directions 0.775")


def test_comparison_begins_with_the_largest_effect(page: Any, site: Path) -> None:
    show(page, index_of(site), "#/compare")
    largest = page.evaluate(
        """videoSae.load(`${videoSae.state.sae}/latents`).then(table => {
            const sizes = Array.from(table.get("effect").values, Math.abs);
            return sizes.indexOf(Math.max(...sizes)) })"""
    )
    assert page.get_by_label("First latent").input_value() == str(largest)


def test_the_other_sae_is_one_choice_away(page: Any, site: Path) -> None:
    show(page, index_of(site))
    page.get_by_label("SAE", exact=True).select_option(f"{SAE}~baseline")
    page.wait_for_url("**~baseline/latents")
    settled(page)
    assert page.locator(".grid-row").count() > 5
