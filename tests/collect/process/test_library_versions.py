"""Which libraries are too old, and what the bounds in pyproject.toml are worth."""

import importlib.metadata
import re
import time
import tomllib
from pathlib import Path

import pytest

from collect.errors import UserError
from collect.process.library_versions import lower_bounds, outdated, require_libraries

ROOT = Path(__file__).resolve().parents[3]


def install(folder: Path, name: str, version: str, *requirements: str) -> None:
    """Put a distribution's metadata where Python looks for them, as pip does."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    info.joinpath("METADATA").write_text(
        "\n".join([*lines, *(f"Requires-Dist: {text}" for text in requirements)]) + "\n"
    )


@pytest.mark.parametrize(
    ("requirement", "bounds"),
    [
        ("zarr>=3.1", {"zarr": "3.1"}),
        ("zarr", {}),
        ("zarr<4,>=3.1.2", {"zarr": "3.1.2"}),
        ("zarr (>=3.1)", {"zarr": "3.1"}),
        ("pyright[nodejs]>=1.1", {"pyright": "1.1"}),
        ('obstore>=0.8; extra == "archive"', {"obstore": "0.8"}),
        ("pytest>=9; extra == 'dev'", {}),
        ('tomli; python_version >= "3.11"', {}),
    ],
)
def test_bounds_of_requirements(requirement: str, bounds: dict[str, str]):
    assert lower_bounds([requirement]) == bounds


@pytest.mark.parametrize(
    ("installed", "bound", "is_old"),
    [
        ("5.17.0", "5.23", True),
        ("5.23.0", "5.23", False),
        ("5.23", "5.23.0", False),
        ("5.100", "5.23", False),
        ("2.13.0+cpu", "2.13", False),
        ("5.24.0.dev0", "5.23", False),
        ("4.99", "5", True),
        ("odd", "5", True),
    ],
)
def test_versions_are_compared_by_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str, bound: str, is_old: bool
):
    install(tmp_path, "made-up", installed)
    monkeypatch.syspath_prepend(tmp_path)
    assert outdated({"made-up": bound, "not-there": "1"}) == ({"made-up": (installed, bound)} if is_old else {})


def test_what_is_too_old_is_named_with_the_command_that_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "video-sae", "9.9.9", "made-up>=2.5", "other>=1; extra == 'archive'", "fine>=1")
    for name, version in (("made-up", "2.4.9"), ("other", "0.9"), ("fine", "1.0")):
        install(tmp_path, name, version)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as caught:
        require_libraries()
    assert str(caught.value) == (
        "made-up 2.4.9 is older than 2.5, other 0.9 is older than 1, which video-sae needs: "
        "pip install -U 'made-up>=2.5' 'other>=1'."
    )


def test_this_environment_is_new_enough_and_the_check_is_quick():
    begun = time.process_time()
    require_libraries()
    assert time.process_time() - begun < 0.5


def declared() -> dict[str, str]:
    """Name -> the whole requirement, of everything that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *(text for texts in project["optional-dependencies"].values() for text in texts)]
    return {re.split(r"[\[>=<; ]", text)[0]: text for text in texts if not text.startswith("video-sae")}


def pins(name: str) -> dict[str, str]:
    """Name -> version of a file of constraints."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return dict(pairs)


def test_every_library_has_a_lowest_version():
    for name, text in declared().items():
        assert re.fullmatch(rf"{re.escape(name)}(\[[a-z]+\])?>=[0-9.]+", text), text


def test_the_lowest_versions_that_are_tested_are_those_that_are_declared():
    found = pins("constraints-lowest.txt")
    assert {name: found.get(name) for name in declared()} == {
        name: text.split(">=")[1] for name, text in declared().items()
    }


def test_the_versions_that_are_installed_by_default_are_within_the_bounds():
    found = pins("constraints.txt")
    numbers = {name: [int(part) for part in re.findall(r"\d+", version)] for name, version in found.items()}
    for name, text in declared().items():
        assert numbers[name] >= [int(part) for part in text.split(">=")[1].split(".")], text


def test_constraints_name_no_place():
    for name in ("constraints.txt", "constraints-lowest.txt"):
        assert all(
            re.fullmatch(r"#.*|[a-z0-9-]+==[0-9][0-9a-z.]*|", line) for line in (ROOT / name).read_text().splitlines()
        )


def test_this_distribution_can_be_found_where_it_is_installed():
    requirements = importlib.metadata.requires("video-sae")
    assert requirements is not None
    assert any(text.startswith("transformers") for text in requirements)
