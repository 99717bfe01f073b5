"""The house is as its plan says: every package's docstring has a phrase per module, and none of them is too large."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOPS = ("collect", "ask", "train_sae", "features", "steer", "report", "browse", "demo")
PACKAGES = sorted({path.parent for top in TOPS for path in (ROOT / top).rglob("*.py")})
MOST_LINES = 350
MOST_MODULES = 16


def names_in(package: Path) -> set[str]:
    """Modules and rooms of a package, as its docstring has to name them."""
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    return modules | {path.parent.name for path in package.glob("*/__init__.py")}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_docstring_has_a_phrase_per_module(package: Path) -> None:
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    listed = r"^    {name}/? +\S|`{name}`.*: \S"
    missing = {name for name in names_in(package) if not re.search(listed.format(name=name), text, re.MULTILINE)}
    assert missing == set()


def test_modules_and_folders_stay_small() -> None:
    long = {path: n for path in ROOT.glob("*/**/*.py") if is_ours(path) and (n := n_lines(path)) > MOST_LINES}
    assert long == {}
    full = {package: n for package in PACKAGES if (n := len(list(package.glob("*.py")))) > MOST_MODULES}
    assert full == {}


def is_ours(path: Path) -> bool:
    return path.relative_to(ROOT).parts[0] in {*TOPS, "tests", "benchmarks"}


def n_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_tree_of_the_readme_names_every_package_and_room() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.partition("## The tree")[2]
    for package in PACKAGES:
        assert re.search(rf"^ *{package.name}/ +\S", tree, re.MULTILINE), f"{package} is not in the README's tree"
