"""The judge's own tests: each outcome from evidence that can have no other."""

from dataclasses import replace

import pytest

from tests.fuzz.commands import Command
from tests.fuzz.kinds import Kind
from tests.fuzz.outcomes import Evidence, is_left_to_readers, judge
from tests.fuzz.process import Ending

READ = Command(name="read", words=("read",), outputs=("run/made",))
OWN = Kind(name="own", files=(), readers=())
EVIDENCE = Evidence(
    command=READ,
    kind=OWN,
    path="run/kept/table.parquet",
    ending=Ending(status=0, text="run/made\n"),
    reference={"run/kept/table.parquet": "1", "run/made/config.json": "2", "run/made/page": "3"},
    before={"run/kept/table.parquet": "spoilt"},
    after={"run/kept/table.parquet": "spoilt", "run/made/config.json": "2", "run/made/page": "3"},
    printed=None,
    added="",
    is_picture=False,
    is_outside_whole=True,
)


def outcome(**changes: object) -> str:
    return judge(replace(EVIDENCE, **changes)).outcome  # type: ignore[arg-type]


def test_the_result_of_the_unspoilt_run_is_right() -> None:
    assert outcome() == "same"


def test_another_result_is_silent_unless_the_file_is_named() -> None:
    other = {**EVIDENCE.after, "run/made/page": "other"}
    assert outcome(after=other) == "silent"
    assert outcome(after=other, ending=Ending(status=0, text="warning: table.parquet is damaged\n")) == "told"


def test_another_input_gives_another_result_only_if_its_hash_is_recorded() -> None:
    given = Kind(name="given", files=(), readers=(), is_input=True)
    other = {**EVIDENCE.after, "run/made/page": "other"}
    assert outcome(after=other, kind=given) == "silent"
    assert outcome(after={**other, "run/made/config.json": "new"}, kind=given) == "recomputed"


def test_a_picture_is_shown_as_it_is_if_it_is_one() -> None:
    shown = Kind(name="shown", files=(), readers=(), is_shown=True)
    other = {**EVIDENCE.after, "run/made/page": "other"}
    assert outcome(after=other, kind=shown, is_picture=True) == "same"
    assert outcome(after=other, kind=shown, is_picture=False) == "silent"
    assert outcome(after=other, kind=shown, is_picture=True, added="no picture here") == "silent"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("error: run/kept/table.parquet is damaged: make it again.\n", "refused"),
        ("error: run/kept is damaged: make it again.\n", "refused by folder"),
        ("error: something is damaged.\n", "unnamed"),
        ("error: table.parquet\nis damaged.\n", "unnamed"),
        ("nothing\n", "unnamed"),
        ("error: table.parquet cannot be read (library error: no such thing): make it again.\n", "refused"),
        ("50%|##\rerror: run/kept/table.parquet is damaged: make it again.\n", "refused"),
        ("error: other.parquet\nerror: something is damaged.\n", "unnamed"),
    ],
)
def test_a_refusal_is_one_sentence_with_the_name(text: str, expected: str) -> None:
    assert outcome(ending=Ending(status=2, text=text)) == expected


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (Ending(status=1, error="KeyError: 'a' at collect/reading.py:1"), "traceback"),
        (Ending(status=0, text="Traceback (most recent call last):\n"), "traceback"),
        (Ending(status=None, signal=11), "crash"),
        (Ending(status=None, signal=9, timed_out=True), "hang"),
        (Ending(status=0, text="a label: \x1b[31m\n"), "controls"),
        (Ending(status=0, text="a label: \u202e\n"), "controls"),
        (Ending(status=3), "status"),
    ],
)
def test_other_endings_are_wrong(ending: Ending, expected: str) -> None:
    verdict = judge(replace(EVIDENCE, ending=ending))
    assert verdict.outcome == expected
    assert not verdict.is_right


def test_nothing_else_may_be_written() -> None:
    assert outcome(after={**EVIDENCE.after, "run/kept/other": "new"}) == "spoilt"
    assert outcome(after={name: what for name, what in EVIDENCE.after.items() if "table" not in name}) == "spoilt"
    assert outcome(is_outside_whole=False) == "outside"


def test_of_two_files_that_were_swapped_either_may_be_named() -> None:
    ending = Ending(status=2, text="error: run/other/second.parquet is damaged: make it again.\n")
    assert outcome(ending=ending) == "unnamed"
    assert outcome(ending=ending, others=("run/other/second.parquet",)) == "refused"


def test_a_file_is_left_to_readers_only_if_nothing_else_differs_and_it_is_as_it_was() -> None:
    made = replace(
        EVIDENCE,
        path="run/made/page",
        reference={"run/made/page": "1", "run/made/other": "2"},
        before={"run/made/page": "spoilt"},
        after={"run/made/page": "spoilt", "run/made/other": "2"},
    )
    assert is_left_to_readers(made)
    assert not is_left_to_readers(replace(made, after={**made.after, "run/made/other": "3"}))
    assert not is_left_to_readers(replace(made, after={**made.after, "run/made/page": "changed"}))
    assert not is_left_to_readers(replace(made, after=made.reference))


def test_the_spoilt_file_itself_may_stay_where_only_what_is_made_from_it_counts() -> None:
    scratch = Kind(name="scratch", files=(), readers=(), is_scratch=True)
    made = replace(EVIDENCE, path="run/made/page", before={"run/made/page": "spoilt"})
    after = {**EVIDENCE.reference, "run/made/page": "spoilt", "run/kept/table.parquet": "1"}
    before = {"run/made/page": "spoilt", "run/kept/table.parquet": "1"}
    assert judge(replace(made, kind=scratch, before=before, after=after)).outcome == "same"
    assert judge(replace(made, kind=OWN, before=before, after=after)).outcome == "silent"
