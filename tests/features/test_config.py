from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from collect.errors import UserError
from features.config import FeaturesConfig, Floors


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_videos": 0},
        {"permutations": 0},
        {"controls": 1},
        {"fdr": 1.0},
        {"media": -1},
        {"seed": -1},
        {"seed": 2**63},
    ],
)
def test_a_number_out_of_range_is_a_user_error_that_names_the_flag(arguments: dict[str, float]) -> None:
    (name,) = arguments
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} .* is out of range"):
        FeaturesConfig(run=Path("run"), **arguments)


def test_the_command_has_few_flags() -> None:
    assert len(dataclasses.fields(FeaturesConfig)) <= 15


def test_the_floors_of_a_name_are_options() -> None:
    config = FeaturesConfig(run=Path("run"), options=("min_auroc=0.8", "min_units=30", "exemplars_per_video=2"))
    assert config.floors == Floors(min_auroc=0.8, min_units=30)
    assert config.exemplars_per_video == 2
    assert FeaturesConfig(run=Path("run")).floors == Floors()


def test_combinations_are_sought_where_they_are_asked_for() -> None:
    assert FeaturesConfig(run=Path("run")).combinations == 0
    assert FeaturesConfig(run=Path("run"), options=("combinations=3",)).combinations == 3


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("min_auroc=1", "min_auroc=1 is out of range"),
        ("margin=-0.1", "margin=-0.1 is out of range"),
        ("min_explained=nan", "min_explained=nan is out of range"),
        ("min_units=0", "min_units=0 is out of range"),
        ("min_units=2.5", "has to be a whole number"),
        ("min_within=much", "has to be a number"),
        ("exemplars_per_video=0", "exemplars_per_video=0 is out of range"),
        ("combinations=1", "combinations=1 is out of range: give 2 or 3"),
        ("combinations=4", "combinations=4 is out of range"),
        ("brightness=2", "brightness is 1 or 0"),
        ("combinations=two", "has to be a whole number"),
        ("min_everything=1", "is not known: give NAME=VALUE with one of min_auroc"),
    ],
)
def test_an_option_that_cannot_be_is_a_user_error(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        FeaturesConfig(run=Path("run"), options=(option,))
