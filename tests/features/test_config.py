from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from collect.errors import UserError
from features.config import FeaturesConfig


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_videos": 0},
        {"exemplars_per_video": 0},
        {"permutations": 0},
        {"controls": 1},
        {"fdr": 1.0},
        {"media": -1},
        {"seed": -1},
    ],
)
def test_a_number_out_of_range_is_a_user_error_that_names_the_flag(arguments: dict[str, float]) -> None:
    (name,) = arguments
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} .* is out of range"):
        FeaturesConfig(run=Path("run"), **arguments)


def test_the_command_has_few_flags() -> None:
    assert len(dataclasses.fields(FeaturesConfig)) <= 15
