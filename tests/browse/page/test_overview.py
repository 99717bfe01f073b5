"""The table of latents and its plot: order, filters, search, columns, address, keys, views, files."""

import csv
import io
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.browse.page.chromium import index_of, settled, show
from tests.browse.page.synthetic import SAE, effects

sync = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

N = 300


def shown_latents(page: Any, n: int = 5) -> list[int]:
    rows = page.locator(".grid-row").evaluate_all("rows => rows.map(row => Number(row.dataset.latent))")
    return rows[:n]


def total(page: Any) -> str:
    return page.locator(".toolbar .total").inner_text()


def test_the_first_rows_are_those_with_the_lowest_effect(page: Any, site: Path) -> None:
    show(page, index_of(site))
    assert shown_latents(page) == np.argsort(effects(N))[:5].tolist()
    assert total(page) == "300 latents"


def test_a_click_on_a_header_sorts_and_a_second_turns_it_round(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/{SAE}/latents?sort=latent")
    header = page.get_by_role("columnheader").filter(has_text="Effect")
    header.get_by_role("button").click()
    sync.expect(header).to_have_attribute("aria-sort", "descending")
    assert shown_latents(page) == np.argsort(-effects(N))[:5].tolist()
    header.get_by_role("button").click()
    sync.expect(header).to_have_attribute("aria-sort", "ascending")
    assert shown_latents(page) == np.argsort(effects(N))[:5].tolist()


def test_missing_values_come_last_in_both_directions(page: Any, site: Path) -> None:
    show(page, index_of(site))
    last = """descending => { const table = new Float32Array([NaN, 2, -0, 0, -1, NaN, Infinity]);
        return Array.from(videoSae.sorted({type: "number", values: table}, 7, descending)) }"""
    assert page.evaluate(last, False) == [4, 2, 3, 1, 6, 0, 5]
    assert page.evaluate(last, True) == [6, 1, 2, 3, 4, 0, 5]


def test_sorting_agrees_with_numpy_on_every_kind_of_number(page: Any, site: Path) -> None:
    show(page, index_of(site))
    draw = np.random.default_rng(3)
    floats = np.concatenate(
        [draw.normal(0, 1, 400), 10 ** draw.uniform(-38, 38, 100), -(10 ** draw.uniform(-38, 38, 100))]
    )
    ints = draw.integers(-(2**31) + 1, 2**31, 500)
    for kind, values in (("Float32Array", floats.astype("f4")), ("Int32Array", ints)):
        column = f"{{type: 'number', values: {kind}.from(values)}}"
        script = f"values => Array.from(videoSae.sorted({column}, values.length, false))"
        assert page.evaluate(script, values.astype(float).tolist()) == np.argsort(values, kind="stable").tolist()


def test_a_filter_of_the_form_narrows_the_table_and_its_chip_widens_it(page: Any, site: Path) -> None:
    show(page, index_of(site))
    page.get_by_role("button", name="Filter", exact=True).click()
    page.get_by_label("Column to filter by").select_option("effect")
    page.get_by_label("Condition").select_option("le")
    page.get_by_label("Value").fill("-0.5")
    page.get_by_role("button", name="Add").click()
    expected = int((effects(N).astype("f4") <= -0.5).sum())
    sync.expect(page.locator(".toolbar .total")).to_have_text(f"{expected} of 300 latents")
    assert "f=effect:le:-0.5" in unquote(page.evaluate("location.hash"))
    page.get_by_role("button", name="Remove the filter").click()
    sync.expect(page.locator(".toolbar .total")).to_have_text("300 latents")


@pytest.mark.parametrize("preset", ["Alive", "Dead", "Unlabelled", "Named", "Effect, exact", "Effect, not exact",
                                    "Explained by place or time", "Not explained by place or time"])  # fmt: skip
def test_presets_filter(page: Any, site: Path, preset: str) -> None:
    show(page, index_of(site))
    page.get_by_role("button", name="Filter", exact=True).click()
    page.get_by_role("button", name=preset, exact=True).click()
    sync.expect(page.locator(".toolbar .total")).to_contain_text("of 300 latents")
    assert page.locator(".chip").count() == 1


def test_search_finds_labels_numbers_and_notes(page: Any, site: Path) -> None:
    show(page, index_of(site))
    search = page.get_by_label("Search latents")
    search.fill("label 4:")
    sync.expect(page.locator(".toolbar .total")).to_contain_text("of 300")
    labels = page.locator(".grid-row .label").evaluate_all("cells => cells.map(cell => cell.innerText)")
    assert labels
    assert all(label.startswith("label 4:") for label in labels)
    search.fill("217")
    sync.expect(page.locator(".grid-row")).to_have_count(1)
    sync.expect(page.locator(".grid-row")).to_have_attribute("data-latent", "217")
    page.evaluate("videoSae.notes.set('note', `${videoSae.state.sae}:33`, 'Looks like Shadows')")
    search.fill("shadows")
    sync.expect(page.locator(".grid-row")).to_have_attribute("data-latent", "33")
    search.fill("nothing has this")
    sync.expect(page.get_by_text("No latent fits these filters")).to_be_visible()


def test_the_address_holds_everything_and_opens_the_same_view(page: Any, site: Path) -> None:
    address = f"#/{SAE}/latents?sort=top_auroc&desc=1&f=top_label_kind:is:object&q=label&cols=latent,top_auroc&plot=map"
    show(page, index_of(site), address)
    titles = page.get_by_role("columnheader").all_inner_texts()
    assert [title.strip() for title in titles] == ["Latent", "AUROC"]
    assert page.get_by_label("Search latents").input_value() == "label"
    assert page.get_by_label("What the plot shows").input_value() == "map"
    before = shown_latents(page, 10)
    copied = page.evaluate("location.hash")
    show(page, index_of(site), copied)
    assert shown_latents(page, 10) == before


def test_back_undoes_a_sort_and_returns_from_a_latent_to_its_row(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/{SAE}/latents?sort=latent")
    page.get_by_role("columnheader").filter(has_text="AUROC").get_by_role("button").click()
    sync.expect(page.locator("[aria-sort=descending]")).to_contain_text("AUROC")
    page.go_back()
    sync.expect(page.locator("[aria-sort=ascending]")).to_contain_text("Latent")
    for _ in range(40):
        page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/latent/39*")
    settled(page)
    page.keyboard.press("Backspace")
    page.wait_for_url("**/latents*")
    settled(page)
    sync.expect(page.locator(".grid-row.current")).to_have_attribute("data-latent", "39")
    sync.expect(page.locator(".grid-row.current")).to_be_in_viewport()


def test_keys_move_search_and_open(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/{SAE}/latents?sort=latent")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    sync.expect(page.locator(".grid-row.current")).to_have_attribute("data-latent", "0")
    page.keyboard.press("G")
    sync.expect(page.locator(".grid-row.current")).to_have_attribute("data-latent", str(N - 1))
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Search latents"
    page.keyboard.type("7j")
    assert page.get_by_label("Search latents").input_value() == "7j"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    sync.expect(page.get_by_role("dialog", name="Keys")).to_be_visible()


def test_only_rows_in_sight_exist_and_the_last_can_be_reached(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/{SAE}/latents?sort=latent")
    assert page.locator(".grid-row").count() < 60
    page.locator(".grid").evaluate("grid => { grid.scrollTop = grid.scrollHeight }")
    sync.expect(page.locator(f'.grid-row[data-latent="{N - 1}"]')).to_be_in_viewport()


def test_columns_can_be_chosen(page: Any, site: Path) -> None:
    show(page, index_of(site))
    page.get_by_role("button", name="Columns").click()
    page.get_by_label("Largest activation").check()
    sync.expect(page.get_by_role("columnheader").filter(has_text="Largest activation")).to_be_visible()
    assert "max_activation" in page.evaluate("location.hash")
    page.get_by_role("button", name="Usual columns").click()
    sync.expect(page.get_by_role("columnheader").filter(has_text="Largest activation")).to_have_count(0)


def test_a_view_is_saved_and_opens_again(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/{SAE}/latents?sort=firing_rate&desc=1")
    before = shown_latents(page)
    page.get_by_role("button", name="Views").click()
    page.get_by_label("Name of the view").fill("dense ones")
    page.get_by_role("button", name="Save").click()
    show(page, index_of(site))
    assert shown_latents(page) != before
    page.get_by_role("button", name="Views").click()
    page.get_by_role("link", name="dense ones").click()
    sync.expect(page.locator("[aria-sort=descending]")).to_contain_text("Firing rate")
    assert shown_latents(page) == before


def test_a_point_shows_its_latent_and_opens_it(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/{SAE}/latents?x=firing_rate&y=effect&f=effect:ge:0.99")
    rows = shown_latents(page, 3)
    scatter = page.locator(".scatter")
    box = scatter.bounding_box()
    found = None
    for x in range(50, int(box["width"]) - 12, 3):  # the points with an effect of almost 1 lie in the uppermost part
        scatter.hover(position={"x": x, "y": 22})
        if page.locator(".tip").is_visible():
            found = page.locator(".tip b").inner_text()
            break
    assert found in {f"Latent {row}" for row in rows}
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(f"**/latent/{found.removeprefix('Latent ')}")


def test_dragging_over_the_plot_narrows_the_table(page: Any, site: Path) -> None:
    show(page, index_of(site), f"#/{SAE}/latents?x=map_x&y=map_y")
    box = page.locator(".scatter").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + box["height"] - 40, steps=4)
    page.mouse.up()
    sync.expect(page.locator(".toolbar .total")).to_contain_text("of 300 latents")
    sync.expect(page.locator(".chip")).to_have_count(4)


def downloaded(page: Any, item: str) -> bytes:
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name=item).click()
    return Path(waiting.value.path()).read_bytes()


def test_csv_and_parquet_hold_what_is_shown(page: Any, site: Path, tmp_path: Path) -> None:
    show(page, index_of(site), f"#/{SAE}/latents?f=effect:ge:0.5&f=top_label:some:")
    order = page.evaluate("Array.from(videoSae.state.order.rows)")
    assert 10 < len(order) < N
    rows = list(csv.DictReader(io.StringIO(downloaded(page, "CSV, columns shown").decode())))
    assert [int(row["latent"]) for row in rows] == order
    expected = effects(N).astype("f4")
    assert [np.float32(row["effect"]) for row in rows] == expected[order].tolist()

    path = tmp_path / "shown.parquet"
    path.write_bytes(downloaded(page, "Parquet, all columns"))
    table = pq.read_table(path)
    assert table["latent"].to_pylist() == order
    assert table["effect"].to_pylist() == expected[order].tolist()
    assert str(table.schema.field("effect").type) == "float"
    assert str(table.schema.field("top_label").type) == "string"
    assert str(table.schema.field("is_dead").type) == "bool"
    labels = page.evaluate(
        """videoSae.load(`${videoSae.state.sae}/latents`).then(
            t => Array.from(videoSae.state.order.rows, r => videoSae.cell(t.get('top_label'), r)))"""
    )
    assert table["top_label"].to_pylist() == labels
    n_dead = sum(table["is_dead"].to_pylist())
    assert table["max_activation"].null_count == n_dead


def test_cells_that_begin_like_formulas_are_quoted_in_csv(page: Any, site: Path) -> None:
    show(page, index_of(site))
    script = """() => videoSae.csv(
        [{name: "label", column: {type: "text", values: ["=1+1", 'a "b", c', null, "@x"]}}], [0, 1, 2, 3])"""
    assert page.evaluate(script) == 'label\r\n\'=1+1\r\n"a ""b"", c"\r\n\r\n\'@x\r\n'
