from pathlib import Path

import pytest

from collect.artefact.json_file import parse_json, read_json
from collect.errors import UserError


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "some.json"
    path.write_bytes(data)
    return path


def test_a_byte_order_mark_is_passed_over(tmp_path: Path):
    assert read_json(written(tmp_path, b'\xef\xbb\xbf{"a": 1}'), "mend it") == {"a": 1}


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"nul", b"\x00"],
    ids=["empty", "cut", "no text", "deep list", "deep object", "endless number", "cut word", "null byte"],
)
def test_whatever_is_wrong_is_one_sentence_that_names_the_file_and_the_remedy(tmp_path: Path, data: bytes):
    path = written(tmp_path, data)
    with pytest.raises(UserError, match=r"some\.json is not valid JSON .*: mend it\.$") as caught:
        read_json(path, "mend it")
    assert "\n" not in str(caught.value)


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path):
    with pytest.raises(UserError, match="is not a file: mend it"):
        read_json(tmp_path, "mend it")
    with pytest.raises(UserError, match="is not a file: mend it"):
        read_json(Path("/dev/zero"), "mend it")
    with pytest.raises(UserError, match="does not exist: mend it"):
        read_json(tmp_path / "absent.json", "mend it")
    with pytest.raises(UserError, match="9 bytes, more than the 8 allowed"):
        read_json(written(tmp_path, b"[1, 2, 3]"), "mend it", most_bytes=8)


def test_a_name_that_no_file_can_have_is_refused():
    with pytest.raises(UserError, match="cannot be read"):
        read_json(Path("a\0b.json"), "mend it")


def test_text_is_parsed_too():
    assert parse_json("\ufeff[1]", "the answer", "ask again") == [1]
