import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from collect.config import CollectConfig
from collect.errors import UserError

NEEDED: dict[str, Any] = {"data": Path("d"), "model": "m", "out": Path("o"), "sites": ("resid/1",)}


def test_defaults_are_valid() -> None:
    CollectConfig(**NEEDED)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sites": ()}, "--sites must name"),
        ({"sites": ("resid/1", "resid/1")}, "--sites must name"),
        ({"frames": "0"}, "A clip has 1 to"),
        ({"select": "0"}, "--select must be"),
        ({"tokens": "every:0"}, "--tokens must be"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"workers": -1}, "--workers must be at least 1"),
        ({"shard_rows": 100}, "--shard-rows must be a multiple of 256"),
        ({"shard_rows": 0}, "--shard-rows must be a multiple of 256"),
        ({"max_failures": -1}, "--max-failures must not be negative"),
    ],
)
def test_wrong_values_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CollectConfig(**{**NEEDED, **change})


def test_arguments_are_read_without_torch() -> None:
    code = (
        "import sys, collect.config, collect.data.split;"
        "print({'torch', 'transformers', 'zarr', 'av'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
