"""The site profile: the fall is the whole margin before the layer that reads the video, and nothing after it."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from ask import profile as module
from ask.profile import describe, pick_site, profile, profiled_sites, replaced
from ask.questions import Item
from ask.reading import picked_site
from ask.tables import PROFILE
from collect.data.perception_test import Dataset
from collect.errors import UserError
from collect.video.sampling import FrameSampling
from collect.vlm import Prefix
from tests.steer.toy import N_VISUAL, ToyVlm, counting_item, noncounting_item, toy_case, visual

EVIDENCE = {"dim": 0.5, "bright": 2.5}


class MadeClips(dict[str, Prefix]):
    """Prefixes that need no decoding."""

    def in_turn(self, video_ids: list[str]) -> list[str]:
        return video_ids


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    prefixes = {name: visual(torch.full((N_VISUAL,), evidence)) for name, evidence in EVIDENCE.items()}
    monkeypatch.setattr(module, "Clips", lambda _vlm, _video, _frames: MadeClips(prefixes))
    monkeypatch.setattr(Dataset, "video", lambda _self, video_id: video_id)
    items: list[Item] = []
    for name in EVIDENCE:
        items += [counting_item(name, options=("0", "50", "100"), answer_id=2), noncounting_item(name)]
    vlm = ToyVlm()
    return profile(
        vlm, Dataset(folder=Path("data"), videos=()), items, profiled_sites(vlm, ()), FrameSampling(n=1), seed=0
    )


def test_the_fall_is_that_of_the_mean_by_hand(table: pd.DataFrame) -> None:
    rows = table[table["kind"] == "object counting"].set_index("site")
    # The largest number is right, and the margin is 100 - 50 = 50 times the evidence that the last of 9 tokens sees.
    # The mean of both videos has the mean evidence, so on average nothing falls in this linear toy …
    share = 2.0 * N_VISUAL / 9
    assert rows.loc["projector", "margin"] == pytest.approx(50 * share * 1.5, rel=1e-5)
    assert rows.loc["projector", "fall"] == pytest.approx(0.0, abs=1e-4)
    # … but each video falls or rises by 50 times the difference to the mean, 1.
    assert rows.loc["projector", "fall_high"] == pytest.approx(50 * share, rel=1e-5)
    assert rows.loc["projector", "fall_low"] == pytest.approx(-50 * share, rel=1e-5)
    assert rows.loc["resid/0", "fall_high"] == pytest.approx(50 * share, rel=1e-5)


def test_nothing_falls_after_the_layer_that_reads(table: pd.DataFrame) -> None:
    rows = table[table["kind"] == "all counting"].set_index("site")
    assert (rows.loc["resid/1", "fall_low"], rows.loc["resid/1", "fall_high"]) == (0.0, 0.0)
    assert rows["depth"].to_dict() == {"projector": 0, "resid/0": 1, "resid/1": 2}


def test_the_table_has_the_schemas_columns_and_a_row_per_site_and_kind(table: pd.DataFrame) -> None:
    assert list(table.columns) == PROFILE.names
    assert len(table) == 3 * 4  # all counting, all non-counting, object counting, colour
    assert "projector" in describe(table)


def test_replacing_touches_visual_tokens_only() -> None:
    case = toy_case(ToyVlm(), visual(torch.arange(4.0)), (counting_item(),))
    hidden = replaced(case.sequences, torch.full((8,), 7.0))
    assert (hidden[:, 1:5] == 7.0).all()
    assert torch.equal(hidden[:, 5:], case.sequences.hidden[:, 5:])
    assert torch.equal(hidden[:, 0], case.sequences.hidden[:, 0])


def _shares(low: float = 0.1, **shares: float | None) -> pd.DataFrame:
    rows = [
        {"site": site.replace("_", "/"), "depth": depth, "kind": "all counting", "fall_share": share, "fall_low": low}
        for depth, (site, share) in enumerate(shares.items())
    ]
    return pd.DataFrame(rows).astype({"fall_share": "float64"})


def test_the_latest_site_that_keeps_half_is_picked() -> None:
    assert pick_site(_shares(projector=1.0, resid_0=0.4, resid_1=0.5, resid_2=0.49)) == "resid/1"
    assert pick_site(_shares(projector=1.0, resid_0=0.1)) == "projector"


def test_a_model_that_does_not_use_the_video_gets_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert pick_site(_shares(projector=None, resid_0=None)) == "projector"
    assert "not read off the video" in caplog.text


def test_a_fall_that_may_be_chance_gets_a_warning_too(caplog: pytest.LogCaptureFixture) -> None:
    assert pick_site(_shares(low=-0.01, projector=1.0, resid_0=0.9)) == "projector"
    assert "not read off the video" in caplog.text


def test_the_projector_is_always_profiled_and_first() -> None:
    vlm = ToyVlm()
    assert profiled_sites(vlm, ()) == ("projector", "resid/0", "resid/1")
    assert profiled_sites(vlm, ("resid/1",)) == ("projector", "resid/1")
    with pytest.raises(UserError, match="resid/7"):
        profiled_sites(vlm, ("resid/7",))


def test_a_run_without_a_profile_is_the_users_problem(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"summary.json does not exist"):
        picked_site(tmp_path)
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "summary.json").write_text("[]")
    with pytest.raises(UserError, match="is not a JSON object"):
        picked_site(tmp_path)
    (tmp_path / "profile" / "summary.json").write_text('{"site": "resid/3"}')
    assert picked_site(tmp_path) == "resid/3"
