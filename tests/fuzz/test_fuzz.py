"""Whatever is done to a file of a run, what reads it gives the right result or refuses it by name.

The short part takes each kind of artefact once; the long one draws hundreds of trials. `python -m tests.fuzz` runs as
many as one likes and repeats single ones.
"""

from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import drawn
from tests.fuzz.commands import COMMANDS
from tests.fuzz.kinds import KINDS, Kind
from tests.fuzz.trials import Bench, Trial


def trials(*kinds: Kind) -> st.SearchStrategy[Trial]:
    """Trials on files of some kinds."""
    return st.randoms(use_true_random=False).map(lambda rng: Trial.draw(rng, kinds))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.replace(" ", "-"))
def test_a_spoilt_file_of_each_kind(bench: Bench, kind: Kind) -> None:
    report = bench.try_out(Trial.draw(Random(f"short/{kind.name}"), (kind,)))
    assert report.verdict.is_right, str(report)


@pytest.mark.slow
@settings(
    max_examples=300,
    # Shrinking a trial would only find another mutation: the report says exactly what was done.
    phases=(Phase.explicit, Phase.generate),
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(trial=trials(*KINDS))
def test_many_spoilt_files(bench: Bench, trial: Trial) -> None:
    report = bench.try_out(trial)
    assert report.verdict.is_right, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_an_unspoilt_run_gives_the_same_again(bench: Bench, name: str) -> None:
    report = bench.without_mutation(name)
    assert report.verdict.outcome == "same", str(report)


def test_a_trial_is_repeated_by_its_number() -> None:
    assert drawn(7, seed=3) == drawn(7, seed=3)
    assert len({drawn(number, seed=3) for number in range(100)}) == 100


def test_every_command_reads_some_kind() -> None:
    read = {name for kind in KINDS for name in kind.readers}
    assert read == COMMANDS.keys() - {"download again"}
