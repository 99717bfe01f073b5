"""What is run exactly, in which order, worked out by hand."""

import numpy as np
import pandas as pd

from steer.screens.plan import drawn_of, lots_of, order_of


def rows(latent: int, subject: str | None, attribution: float, item: str) -> dict[str, object]:
    return {
        "latent": latent,
        "subject": subject,
        "counting": subject is not None,
        "attribution": attribution,
        "direct_estimate": np.nan,
        "masked_delta_margin": np.nan,
        "item": item,
        "video_id": f"video {item}",
    }


def test_subjects_take_turns_in_proportion_to_their_questions() -> None:
    of_lamp = [rows(latent, "lamp", -size, item) for latent, size in ((0, 9.0), (1, 8.0), (2, 7.0)) for item in "ab"]
    of_cup = [rows(latent, "cup", size, "c") for latent, size in ((3, 0.2), (4, 0.1), (0, 0.3))]
    table = pd.DataFrame([*of_lamp, *of_cup, rows(5, None, 99.0, "d")])
    # Turns: lamp (two questions) 0 at 1/2, 1 at 1, 2 at 3/2; cup 0 at 1, 3 at 2, 4 at 3; 5 fires in another.
    assert order_of(table) == [0, 1, 2, 3, 4, 5]
    assert order_of(table[table["subject"] != "lamp"]) == [0, 3, 4, 5]


def test_each_screen_gives_its_own_leaders() -> None:
    table = pd.DataFrame([rows(latent, "lamp", 1.0 + latent, "a") for latent in range(4)])
    table["direct_estimate"] = [-9.0, 2.0, 1.0, 0.0]
    # Direct: 0, 1, 2, 3; gradient: 3, 2, 1, 0. In each turn the direct effect goes first.
    assert order_of(table) == [0, 3, 1, 2]
    table["direct_estimate"] = [-9.0, 2.0, np.nan, np.nan]
    assert order_of(table) == [0, 3, 1, 2]


def test_the_draw_is_a_stratified_sample_of_edits() -> None:
    # Edits 0 to 98 of falling size in two videos that are asked, and one of a video that is not.
    of = [rows(edit // 2, "lamp", 99.0 - edit, "ab"[edit % 2]) for edit in range(99)]
    table = pd.DataFrame([*of, rows(0, None, 999.0, "c")])
    drawn = drawn_of(table, seed=0)
    assert sorted(drawn) == sorted({(edit // 2, f"video {'ab'[edit % 2]}") for edit in range(99)})
    assert drawn != drawn_of(table, seed=1)
    # The first 16 come from the 16 strata of 7, 7, 7, 6, 6 … neighbours in size.
    place = {(row["latent"], row["video_id"]): number for number, row in enumerate(of)}
    strata = [set(part.tolist()) for part in np.array_split(np.arange(99), 16)]
    assert all(len(stratum & {place[edit] for edit in drawn[:16]}) == 1 for stratum in strata)


def test_lots_hold_leaders_and_drawn_edits_of_the_others() -> None:
    order = list(range(29, -1, -1))
    drawn = [(latent, video) for latent in range(30) for video in ("a", "b")]
    lots = lots_of(order, drawn)
    assert [latent for lot in lots for latent in lot.latents] == order
    assert [len(lot.latents) for lot in lots] == [12, 12, 6]
    assert lots[0].edits == tuple(drawn[:36])  # of latents 0 to 17; 18 to 29 lead
    assert lots[1].edits == lots[2].edits == ()  # the draw is used up
    assert lots_of([], []) == []
    for number, lot in enumerate(lots_of(order, drawn[::-1])):
        led = set(order[: 12 * (number + 1)])
        assert not led & {latent for latent, _ in lot.edits}


def test_large_dictionaries_have_larger_lots() -> None:
    # 20,000 / (12 x 256) is 6.5, so a lot is seven times as large.
    lots = lots_of(list(range(20_000)), [(latent, "a") for latent in range(19_999, 9_999, -1)])
    assert (len(lots[0].latents), len(lots[0].edits)) == (84, 672)
    assert sum(len(lot.latents) for lot in lots) == 20_000
