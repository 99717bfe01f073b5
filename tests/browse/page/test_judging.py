"""What people judge: the blind test, which scores them, and annotation debt."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.browse.page.chromium import index_of, settled, show
from tests.browse.page.synthetic import SAE

sync = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

LABEL = "label 0: something that is going on"


def test_wilson_intervals_are_those_of_the_formula(page: Any, site: Path) -> None:
    show(page, index_of(site))
    # By hand with z = 1.96: for 8 of 10, (0.8 + 0.1921 ± 0.2763) / 1.3842 -> 0.490 … 0.943 (Wilson 1927).
    low, high = page.evaluate("videoSae.wilson(8, 10)")
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert page.evaluate("videoSae.wilson(0, 0)") == [0, 1]
    low, high = page.evaluate("videoSae.wilson(0, 5)")
    assert low == 0
    assert round(high, 3) == 0.434
    assert page.evaluate("videoSae.wilson(5, 5)[1]") == 1


def query_sources(page: Any) -> list[str]:
    """Which of the two shown clips is which moment: its file. In the made-up run the true one is video_1."""
    return page.locator(".choice video").evaluate_all("films => films.map(film => film.getAttribute('src'))")


def answer_all(page: Any, *, right: bool, guess: str) -> None:
    page.get_by_role("button", name="Begin").click()
    for _ in range(6):
        first, _second = query_sources(page)
        true = 1 if "video_1" in first else 2
        page.keyboard.press(str(true if right else 3 - true))
        page.keyboard.press(guess)


def test_the_blind_test_scores_a_person_who_is_always_right(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/blind/{SAE}")
    answer_all(page, right=True, guess="t")
    sync.expect(page.locator(".result tbody tr")).to_have_count(4)
    rows = page.locator(".result tbody tr").all_inner_texts()
    assert "6 of 6" in rows[0]
    assert "61" in rows[0].split("\t")[-1]  # Wilson's lower end for 6 of 6: 1 / (1 + 3.8415 / 6) = 0.610
    assert "4 of 4" in rows[1]  # of the trained SAE
    assert "2 of 2" in rows[2]  # of the baseline
    assert "4 of 6" in rows[3]  # always guessed "trained"
    sync.expect(page.locator(".could")).to_contain_text("do not show that you could tell")


def test_the_blind_test_hides_its_key_until_the_end_and_exports_the_answers(page: Any, site: Path) -> None:
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    show(page, index_of(site), f"#/blind/{SAE}")
    answer_all(page, right=False, guess="f")
    sync.expect(page.locator(".result tbody tr").first).to_contain_text("0 of 6")
    key = next(i for i, url in enumerate(loaded) if url.endswith("blind-key.js"))
    assert not any("/media/" in url for url in loaded[key:])
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Export answers").click()
    saved = json.loads(Path(waiting.value.path()).read_text(encoding="utf-8"))
    assert (saved["n"], saved["n_right"], saved["n_told"]) == (6, 0, 2)
    assert len(saved["answers"]) == 6
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Save").click()
    show(page, index_of(site), f"#/blind/{SAE}")
    sync.expect(page.get_by_text("Ada: 0 of 6 right")).to_be_visible()


def test_no_heat_and_no_number_gives_the_answer_away(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/blind/{SAE}")
    page.get_by_role("button", name="Begin").click()
    assert page.locator(".blind canvas").count() == 0
    assert "latent " not in page.locator(".blind").inner_text().lower().replace("this latent", "")
    assert page.locator(".reference video").count() == 8


def debt(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/debt/{SAE}/{LABEL}")


def test_debt_lists_labels_and_opens_one(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/debt/{SAE}")
    page.get_by_role("link", name=LABEL).click()
    settled(page)
    sync.expect(page.locator(".caption").first).to_contain_text("1 of 10")


def test_one_key_judges_goes_on_and_corrects_the_precision(page: Any, site: Path) -> None:
    debt(page, site)
    for key in "yynuy":  # 3 there, 1 not, 1 cannot tell, all of latent 0
        page.keyboard.press(key)
        page.wait_for_timeout(60)
    sync.expect(page.locator(".caption").first).to_contain_text("6 of 10")
    row = page.locator(".scores tbody tr").first
    # 90 inside and 10 outside: (90 + 10 · 3/4) / 100 = 97.5 %; Wilson for 3 of 4: 0.301 … 0.954 -> 93 % … 99.5 %.
    sync.expect(row.locator(".corrected")).to_contain_text("98 %")
    assert "93 % … 100 %" in row.inner_text()
    assert "5 of 5" in row.inner_text()
    kept = page.evaluate("videoSae.notes.entries('judgement').map(([, value]) => value).filter(value => value.inside)")
    assert len(kept) == 1
    assert kept[0]["precision"] == pytest.approx(0.975)
    assert kept[0]["low"] == pytest.approx(0.9 + 0.1 * 0.3006, abs=1e-4)
    assert (kept[0]["n_there"], kept[0]["n_judged"]) == (3, 4)


def test_judgements_stay_and_the_next_visit_begins_after_them(page: Any, site: Path) -> None:
    debt(page, site)
    page.keyboard.press("y")
    sync.expect(page.locator(".caption").first).to_contain_text("2 of 10")
    page.keyboard.press("n")
    sync.expect(page.locator(".caption").first).to_contain_text("3 of 10")
    debt(page, site)
    sync.expect(page.locator(".caption").first).to_contain_text("3 of 10")
    assert page.locator(".tile[data-judged=there]").count() == 1
    assert page.locator(".tile[data-judged=not]").count() == 1
    show(page, index_of(site), f"#/debt/{SAE}")
    assert page.locator("tbody tr").first.inner_text().split("\t")[-1] == "2"
