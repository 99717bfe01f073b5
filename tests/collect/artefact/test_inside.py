import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect.artefact.inside import inside, is_relative, open_regular
from collect.errors import UserError


@pytest.mark.parametrize("name", ["a", "a/b.json", "rank-0.zarr/resid/12", "...", "a b/ä", "a//b", "./a"])
def test_names_within_the_folder(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", ["", ".", "/etc/passwd", "..", "../a", "a/../../b", "a/..", "a\0b", None, 3, ["a"]])
def test_names_that_lead_out_are_refused_by_the_file_that_gave_them(tmp_path: Path, name: object) -> None:
    with pytest.raises(UserError, match=r"manifest\.json names the path .* is not one within"):
        inside(tmp_path, name, tmp_path / "manifest.json")


def test_links_count_by_where_they_lead(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "real").mkdir(parents=True)
    (folder / "within").symlink_to("real")
    (folder / "out").symlink_to(tmp_path)
    (folder / "circle").symlink_to("circle")
    (folder / "device").symlink_to("/dev/zero")
    assert inside(folder, "within/x") == folder / "within" / "x"
    for name in ("out", "out/x", "circle", "device"):
        with pytest.raises(UserError, match="is not one within"):
            inside(folder, name)
    (tmp_path / "alias").symlink_to(folder)  # how the user calls the folder does not matter
    assert inside(tmp_path / "alias", "real") == tmp_path / "alias" / "real"


@given(st.text(alphabet="ab./\\~\0", max_size=12))
def test_no_relative_name_leaves_any_folder(name: str) -> None:
    if is_relative(name):
        assert os.path.normpath(f"/base/{name}").startswith("/base/")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    descriptor = open_regular(tmp_path / "file")
    assert os.read(descriptor, 100) == b"content"
    os.close(descriptor)
    os.mkfifo(tmp_path / "pipe")  # opening one for reading waits for ever
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "none", tmp_path / "a\0b"):
        with pytest.raises(OSError, match=r"is not a file|No such file|null byte"):
            open_regular(path)
