"""What made an artefact."""

import subprocess
import sys
from pathlib import Path

import pytest

from collect.process import provenance


def test_commit_is_none_where_the_source_is_not_the_top_of_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(
        provenance, "__file__", str(tmp_path / "site-packages" / "collect" / "process" / "provenance.py")
    )
    (tmp_path / "site-packages" / "collect" / "process").mkdir(parents=True)
    assert provenance.source_commit.__wrapped__() is None


def test_reading_versions_imports_no_heavy_library() -> None:
    code = (
        "import sys, collect.process.provenance as a; a.installed_versions();"
        "print([m for m in ('torch', 'transformers', 'zarr', 'numpy', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
