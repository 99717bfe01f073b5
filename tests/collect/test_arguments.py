"""Names of folders that people give, and the options that take them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ask.config import ProfileConfig
from collect.arguments import MOST_BYTES, require_name, require_path, require_wanted
from collect.config import CollectConfig
from collect.download.config import DownloadConfig
from collect.errors import UserError
from collect.plan.config import PlanConfig
from collect.printable import printable
from demo.config import DemoConfig
from features.config import FeaturesConfig
from report.config import ReportConfig
from steer.config import SteerConfig
from train_sae.config import TrainConfig
from train_sae.quality.config import EvaluateConfig

BAD_NAMES = [
    "",
    ".",
    "..",
    ".hidden",
    "a/b",
    "a\\b",
    "a\nb",
    "\x1b[31mred",
    "a\x00",
    " a",
    "a ",
    "caf\udce9",
    "\u202ea",
]


@pytest.mark.parametrize("name", ["wide", "2026-11-27_k64.v2", "größer", "名前", "x" * MOST_BYTES])
def test_a_good_name(name: str):
    require_name("--name", name)


@pytest.mark.parametrize("name", [*BAD_NAMES, "x" * (MOST_BYTES + 1), "ü" * MOST_BYTES])
def test_a_bad_name(name: str):
    with pytest.raises(UserError, match="--name") as caught:
        require_name("--name", name)
    assert printable(caught.value, 999) == str(caught.value)


@given(st.text(alphabet=st.characters(codec=None), max_size=300))
@example("\ud800")
def test_a_name_that_passes_can_be_a_folder_and_be_shown(tmp_path_factory: pytest.TempPathFactory, name: str):
    try:
        require_name("--name", name)
    except UserError:
        return
    folder = tmp_path_factory.getbasetemp() / "names" / name
    folder.mkdir(parents=True, exist_ok=True)
    assert folder.parent.name == "names"
    assert printable(name, len(name)) == name


@pytest.mark.parametrize(
    "path", ["runs/a\nb", "runs/\x1b[2J", "a\nb/runs", "runs/caf\udce9", f"runs/{'x' * 300}", "runs/\u2028"]
)
def test_a_path_that_could_not_be_shown_or_made(path: str):
    with pytest.raises(UserError, match="--out") as caught:
        require_path("--out", Path(path))
    assert printable(caught.value, 999) == str(caught.value)


@pytest.mark.parametrize("path", ["runs/plm1b", "../runs", ".", "/", "~/.cache/x", "caf\udce9/runs"])
def test_a_path_that_will_do(path: str):
    require_path("--out", Path(path))


@pytest.mark.parametrize("name", [None, "batchtopk-64", "../elsewhere/sae", "/models/sae", "mine@resid/8"])
def test_a_folder_that_is_only_read_may_lie_anywhere(name: str | None):
    require_wanted("--sae", name)


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b"])
def test_what_names_no_folder_is_refused(name: str):
    with pytest.raises(UserError, match="--sae"):
        require_wanted("--sae", name)


BAD = Path("runs/a\nb")
RUN = Path("run")


@pytest.mark.parametrize(
    ("option", "make"),
    [
        ("--out", lambda: CollectConfig(data=RUN, model="m", out=BAD, sites=("resid/1",))),
        ("--out", lambda: DownloadConfig(out=BAD)),
        ("--out", lambda: DemoConfig(out=BAD)),
        ("--out", lambda: ProfileConfig(data=RUN, model="m", out=BAD)),
        ("--json", lambda: PlanConfig(model="m", json=BAD)),
        ("--name", lambda: TrainConfig(run=RUN, site="resid/1", name="a\nb")),
        ("--name", lambda: TrainConfig(run=RUN, site="resid/1", name="x" * 190, k=(8, 16))),
        ("--site", lambda: TrainConfig(run=RUN, site="resid/1\n")),
        ("--sae", lambda: FeaturesConfig(run=RUN, sae="..")),
        ("--sae", lambda: SteerConfig(run=RUN, sae="..")),
        ("--sae", lambda: EvaluateConfig(run=RUN, sae="..")),
        ("--sae", lambda: ReportConfig(run=RUN, sae="..")),
    ],
    ids=range(12),
)
def test_every_option_that_names_a_folder_is_checked(option: str, make: Callable[[], object]):
    with pytest.raises(UserError, match=option):
        make()
