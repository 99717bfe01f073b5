"""Arguments: operations are read as written, and bad ones are refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from ask.config import ProfileConfig
from collect.errors import UserError
from steer.config import SteerConfig
from steer.edits.operations import Operation


@pytest.mark.parametrize("text", ["ablate", "scale:2", "scale:0.5", "clamp:p95", "add:0.25", "add:-0.25"])
def test_an_operation_is_written_as_it_is_read(text: str) -> None:
    assert str(Operation.parse(text)) == text


def test_strengths_are_in_the_units_of_their_kind() -> None:
    assert Operation.parse("clamp:p95").strength == 0.95
    assert Operation.parse("scale:2").strength == 2.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "remove",
        "ablate:1",
        "scale",
        "scale:1",
        "scale:-1",
        "scale:inf",
        "scale:nan",
        "scale:1e300",
        "clamp:pnan",
        "add:nan",
        "clamp:95",
        "clamp:p101",
        "add:0",
        "add:0.6",
    ],
)
def test_other_operations_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not an operation"):
        SteerConfig(run=Path("run"), operations=(text,))


@pytest.mark.parametrize(
    "arguments",
    [
        {"top": -1},
        {"budget_minutes": -0.1},
        {"budget_minutes": float("inf")},
        {"budget_minutes": float("nan")},
        {"items": (0, 1)},
        {"items": (1, -1)},
        {"analyses": ("doses", "guesses")},
        {"batch_size": 0},
        {"operations": ()},
        {"operations": ("ablate",) * 2},
        {"latents": (-1,)},
        {"seed": -1},
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict) -> None:
    with pytest.raises(UserError, match="--"):
        SteerConfig(run=Path("run"), **arguments)


def test_a_profile_needs_a_question() -> None:
    with pytest.raises(UserError, match="--items 0 is too small: give at least 1"):
        ProfileConfig(data=Path("data"), model="m", out=Path("run"), items=0)


def test_a_profile_needs_a_seed_that_generators_take() -> None:
    with pytest.raises(UserError, match="--seed -1 is out of range"):
        ProfileConfig(data=Path("data"), model="m", out=Path("run"), seed=-1)


def test_importing_the_configuration_loads_no_torch() -> None:
    code = "import sys, steer.config; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
