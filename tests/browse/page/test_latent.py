"""The page of a latent: moments that play, marks that cover what they should, and every panel."""

import base64
import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browse.page.chromium import index_of, settled, show, until
from tests.browse.page.shard_writer import rows, write_shard
from tests.browse.page.synthetic import FPS, HEIGHT, N_T, SAE, WIDTH, latent_object, make_site, square_box

sync = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

BOX = (0, 208, 230)  # of tracks
LATENT = f"#/{SAE}/latent/12"


def clip_ready(page: Any) -> None:
    until(page, "document.querySelector('.stage video').readyState >= 3")


def halt(page: Any, time_s: float) -> None:
    """Show the frame of a time, and wait until it and its marks are drawn."""
    page.evaluate("document.querySelector('.stage video').pause()")
    page.evaluate(
        """time => new Promise(done => { const film = document.querySelector(".stage video");
        film.addEventListener("seeked", () => requestAnimationFrame(() => requestAnimationFrame(done)), {once: true});
        film.currentTime = time })""",
        time_s + 0.25 / FPS,
    )


def frame_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


def marks(page: Any) -> np.ndarray:
    """The canvas over the clip as RGBA [row, col, channel]."""
    width, height, values = page.evaluate(
        """() => { const c = document.querySelector(".stage .marks");
        const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
        let text = "";  // millions of numbers as numbers would take Playwright seconds, or minutes on a busy machine
        for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.subarray(i, i + 32768));
        return [c.width, c.height, btoa(text)] }"""
    )
    return np.frombuffer(base64.b64decode(values), np.uint8).reshape(height, width, 4)


def test_a_clip_plays_and_its_marks_follow(page: Any, site: Path) -> None:
    show(page, index_of(site), LATENT)
    clip_ready(page)
    until(page, "!document.querySelector('.stage video').paused")
    first = page.evaluate("document.querySelector('.stage video').currentTime")
    until(page, f"Math.abs(document.querySelector('.stage video').currentTime - {first}) > 0.15")
    page.keyboard.press(" ")
    until(page, "document.querySelector('.stage video').paused")
    assert page.evaluate("document.querySelector('.stage video').videoWidth") == WIDTH
    assert "of 8" in page.locator(".clock").inner_text()


@pytest.mark.parametrize("frame", [0, 7, 20])
def test_the_box_covers_the_object_in_the_frame_to_a_pixel(browser: Any, site: Path, frame: int) -> None:
    context = browser.new_context(viewport={"width": 1600, "height": 1200})
    page = context.new_page()
    show(page, index_of(site), LATENT)
    clip_ready(page)
    # Twice the clip's own size, so that its pixels are two of the screen's.
    page.add_style_tag(
        content=f""".stage {{ width: {2 * WIDTH}px; height: {2 * HEIGHT}px;
            max-width: none !important; max-height: none !important; }}"""
    )
    page.keyboard.press("h")
    halt(page, frame / FPS)
    drawn = marks(page)
    assert drawn.shape[:2] == (2 * HEIGHT, 2 * WIDTH)
    x1, y1, x2, y2 = square_box(frame / FPS)
    # The tag with the label stands above the box and is of another colour.
    cyan = (np.abs(drawn[..., :3].astype(int) - BOX).max(-1) <= 2) & (drawn[..., 3] == 255)
    expected = tuple(round(v) for v in (x1 * 2 * WIDTH, y1 * 2 * HEIGHT, x2 * 2 * WIDTH, y2 * 2 * HEIGHT))
    assert frame_of(cyan) == expected

    page.add_style_tag(content=".stage .marks { visibility: hidden; } .stage { border-radius: 0 !important; }")
    shot = np.array(Image.open(io.BytesIO(page.locator(".stage").screenshot())).convert("L")).astype(int)
    # Grey has a luma of 150 and red one of 85; the clip's colours have half its resolution, its luma has all of it.
    seen = frame_of(shot < (150 + 85) / 2)
    assert max(abs(a - b) for a, b in zip(seen, expected, strict=True)) <= 1
    context.close()


def test_the_heat_lies_on_the_patches_of_the_step(page: Any, site: Path) -> None:
    show(page, index_of(site), LATENT)
    clip_ready(page)
    page.keyboard.press("b")
    halt(page, 0.1)
    drawn = marks(page)
    height, width = drawn.shape[:2]
    x1, y1, x2, y2 = square_box(0)
    row, col = int((y1 + y2) / 2 * 8), int((x1 + x2) / 2 * 8)
    hot = drawn[..., 3] > 0
    sides = ((col - 1) * width, (row - 1) * height, (col + 1) * width, (row + 1) * height)
    assert frame_of(hot) == tuple(int(side / 8 + 0.5) for side in sides)
    # The moment ends after its second step: no heat on the third.
    halt(page, 2.5 * 3 / N_T)
    assert not (marks(page)[..., 3] > 0).any()


def test_frames_and_steps_by_key(page: Any, site: Path) -> None:
    show(page, index_of(site), LATENT)
    clip_ready(page)
    halt(page, 0)
    for key, expected in (
        ("ArrowRight", 1 / FPS),
        ("ArrowRight", 2 / FPS),
        ("ArrowLeft", 1 / FPS),
        ("Shift+ArrowRight", 3 / N_T),
    ):
        page.keyboard.press(key)
        until(page, f"Math.abs(document.querySelector('.stage video').currentTime - {expected}) < {0.5 / FPS}")


def test_a_moment_loops_within_its_own_time(page: Any, site: Path) -> None:
    show(page, index_of(site), LATENT)
    clip_ready(page)
    times = page.evaluate(
        """() => new Promise(done => { const film = document.querySelector(".stage video"), seen = [];
        const timer = setInterval(() => { seen.push(film.currentTime);
            if (seen.length > 60) { clearInterval(timer); done(seen) } }, 30) })"""
    )
    assert max(times) < 2 * 3 / N_T + 0.1
    assert any(b < a for a, b in pairwise(times))


def test_groups_have_their_share_and_tiles_their_moment(page: Any, site: Path) -> None:
    show(page, index_of(site), LATENT)
    groups = page.locator(".moment-row")
    assert groups.evaluate_all("rows => rows.map(row => row.dataset.group)") == [
        "top",
        "q5",
        "q4",
        "q3",
        "q2",
        "q1",
        "random",
    ]
    assert "18.0 % of its activation" in groups.first.inner_text()
    tile = page.locator('[data-group="q3"] .tile').nth(2)
    tile.click()
    sync.expect(tile).to_have_attribute("aria-pressed", "true")
    assert "m=q3.2" in page.evaluate("location.hash")
    sync.expect(page.locator(".caption")).to_contain_text("video_2")
    page.keyboard.press("7")
    sync.expect(page.locator(".caption")).to_contain_text("Random")
    sync.expect(page.locator('[data-group="random"] .tile').first).to_have_attribute("aria-pressed", "true")


def test_a_moment_has_a_permalink(page: Any, site: Path) -> None:
    show(page, index_of(site), LATENT + "?m=q5.1")
    sync.expect(page.locator('[data-group="q5"] .tile').nth(1)).to_have_attribute("aria-pressed", "true")
    clip_ready(page)
    # Step (1 + 1) of 8 in a clip of 3 s.
    assert page.evaluate("document.querySelector('.stage video').currentTime") >= 2 * 3 / N_T


def test_every_panel_is_there_and_fills_the_window(page: Any, site: Path) -> None:
    show(page, index_of(site), LATENT)
    names = page.locator(".panel").evaluate_all("panels => panels.map(panel => panel.dataset.panel)")
    assert names == [
        "moments",
        "associations",
        "effects",
        "doses",
        "items",
        "histogram",
        "place",
        "neighbours",
        "tokens",
    ]
    for name in names:
        panel = page.locator(f'[data-panel="{name}"]')
        panel.get_by_role("button", name="full size").click()
        box = panel.bounding_box()
        assert (box["x"], box["y"], box["width"], box["height"]) == (0, 0, 1280, 800)
        assert f"panel={name}" in page.evaluate("location.hash")
        page.keyboard.press("Escape")
        assert panel.bounding_box()["height"] != 800 or panel.bounding_box()["x"] != 0
    show(page, index_of(site), LATENT + "?panel=effects")
    assert page.locator('[data-panel="effects"]').bounding_box()["width"] == 1280


def test_panels_show_the_numbers_of_the_shard(page: Any, site: Path) -> None:
    show(page, index_of(site), LATENT)
    associations = page.locator('[data-panel="associations"]')
    first = associations.locator("tbody tr").first.inner_text()
    assert "its name" in first
    assert "0.930" in first
    assert "runner-up" in associations.locator("tbody tr").nth(1).inner_text()
    whisker = associations.locator("svg.whisker").first
    assert whisker.get_attribute("aria-label") == "0.930, interval 0.880 … 0.960"
    effect = page.locator('[data-panel="effects"] tbody tr').first.inner_text().split("\t")
    assert effect[0] == "red object"
    assert "−0.600" in effect
    assert "red0" in page.locator('[data-panel="tokens"]').inner_text()
    assert "1.90 … 2.60" in page.locator('[data-panel="tokens"]').inner_text()
    assert page.locator('[data-panel="doses"] canvas').count() == 1
    assert page.locator('[data-panel="histogram"] canvas').count() == 1
    assert page.locator('[data-panel="place"] .heat-cell').count() == 64


def test_an_item_opens_its_video_at_its_question(page: Any, site: Path) -> None:
    show(page, index_of(site), LATENT)
    page.locator('[data-panel="items"] a').nth(1).click()
    page.wait_for_url("**/video/video_1*")
    settled(page)
    sync.expect(page.locator(".question.current")).to_have_attribute("data-item", "video_1-q1")
    sync.expect(page.locator('.firing-row[data-latent="12"]')).to_have_attribute("aria-selected", "true")


def test_names_and_notes_stay_and_are_found(page: Any, site: Path) -> None:
    show(page, index_of(site), LATENT)
    page.get_by_label("Your name for this latent").fill("red things")
    page.get_by_label("Your note on this latent").fill("<b>not bold</b>")
    page.keyboard.press("Tab")
    sync.expect(page.get_by_text("Saved in this browser").first).to_be_visible()
    page.reload()
    settled(page)
    assert page.get_by_label("Your name for this latent").input_value() == "red things"
    assert page.get_by_label("Your note on this latent").input_value() == "<b>not bold</b>"
    page.get_by_role("link", name="Latents", exact=True).first.click()
    settled(page)
    sync.expect(page.locator('.grid-row[data-latent="12"] .own-name')).to_have_text("red things")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download notes").click()
    assert "red things" in Path(waiting.value.path()).read_text(encoding="utf-8")


def test_next_and_previous_follow_the_order_of_the_table(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/{SAE}/latents?sort=effect&desc=1")
    order = page.evaluate("Array.from(videoSae.state.order.rows.slice(0, 3))")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/latent/{order[0]}*")
    settled(page)
    page.keyboard.press("j")
    page.wait_for_url(f"**/latent/{order[1]}*")
    settled(page)
    page.keyboard.press("k")
    page.wait_for_url(f"**/latent/{order[0]}*")


def test_a_latent_that_is_told_in_brief_says_so(page: Any, tmp_path: Path) -> None:
    site = make_site(tmp_path, n_latents=3)
    brief = latent_object(1, ["ball"]) | {
        "detail": "brief",
        "place": [],
        "associations": [],
        "effects": [],
        "items": [],
    }
    for moment in brief["moments"]:
        moment |= {"heat": None, "per_frame": []}
    write_shard(site, f"{SAE}/latent/0", rows([latent_object(0, ["ball"]), brief]))
    show(page, index_of(site), f"#/{SAE}/latent/1")
    sync.expect(page.get_by_text("tells this latent in brief")).to_be_visible()
    clip_ready(page)
    page.keyboard.press("b")
    halt(page, 0.1)
    assert not marks(page).any()
    show(page, index_of(site), f"#/{SAE}/latent/0")
    assert page.get_by_text("tells this latent in brief").count() == 0


def test_a_latent_that_is_not_there_is_said_so(page: Any, site: Path) -> None:
    for hash_, text in (
        (f"#/{SAE}/latent/999", "This SAE has no latent 999."),
        (f"#/{SAE}/latent/x", "This SAE has no latent NaN."),
        ("#/no/latent/3", "This SAE has no latents yet."),
    ):
        show(page, index_of(site), hash_)
        sync.expect(page.get_by_text(text)).to_be_visible()
