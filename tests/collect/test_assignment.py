"""Whatever dies when, and with however many processes it goes on: every video is stored once."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect.assignment import (
    Assignment,
    Progress,
    Task,
    divide,
    estimated_costs,
    make_batches,
    read_plan,
    schedule,
    write_plan,
)
from collect.data.perception_test import Video
from collect.errors import UserError


def video(index: int, height: int = 48, width: int = 64, n_frames: int = 30) -> Video:
    return Video(
        video_id=f"v{index}", path=None, split="", frame_rate=30.0, n_frames=n_frames, height=height, width=width
    )


@dataclass
class Ranks:
    """What the ranks of a store would say."""

    committed: dict[int, list[int]] = field(default_factory=dict)
    partial: dict[int, int | None] = field(default_factory=dict)
    final: set[int] = field(default_factory=set)

    def progress(self) -> dict[int, Progress]:
        return {
            rank: Progress(committed=frozenset(done), partial=self.partial.get(rank), is_final=rank in self.final)
            for rank, done in self.committed.items()
        }

    def run(self, task: Task, stop_after: int | None, cut: bool) -> bool:
        """Do a task, or die after so many videos, the next of which may be cut by the last shard."""
        done = self.committed.setdefault(task.rank, [])
        for n, index in enumerate(i for batch in task.batches for i in batch if i in task.wanted):
            if stop_after is not None and n >= stop_after:
                if self.partial.get(task.rank) is None:
                    self.partial[task.rank] = index if cut else None
                return False
            if self.partial.get(task.rank) is not None:
                assert index == self.partial[task.rank], "the video that is cut comes first"
            self.partial[task.rank] = None
            done.append(index)
        assert self.partial.get(task.rank) is None
        self.final.add(task.rank)
        return True


@given(
    n_videos=st.integers(1, 20),
    size=st.integers(1, 4),
    rounds=st.lists(st.tuples(st.integers(1, 4), st.lists(st.integers(0, 4), max_size=6), st.booleans()), max_size=4),
    last=st.integers(1, 4),
)
def test_every_video_is_stored_once(
    n_videos: int, size: int, rounds: list[tuple[int, list[int], bool]], last: int
) -> None:
    videos = [video(i, height=48 if i % 3 else 64) for i in range(n_videos)]
    plan, ranks, costs = Assignment(batches=make_batches(videos, size)), Ranks(), estimated_costs(videos)
    for world_size, stops, cut in [*rounds, (last, [], False)]:
        plan, tasks = schedule(plan, ranks.progress(), costs, world_size)
        assert len(tasks) == world_size
        stops = list(stops)
        for own in tasks:
            for task in own:
                if not ranks.run(task, stops.pop() if stops else None, cut):
                    break
    stored = [index for done in ranks.committed.values() for index in done]
    assert sorted(stored) == list(range(n_videos))
    assert ranks.final == set(plan.ranks)
    assert schedule(plan, ranks.progress(), costs, last) == (plan, [[] for _ in range(last)])


def test_as_many_processes_go_on_in_their_ranks() -> None:
    videos = [video(i) for i in range(8)]
    plan, first = schedule(Assignment(batches=make_batches(videos, 2)), {}, [1.0] * 8, 2)
    assert [[task.rank for task in own] for own in first] == [[0], [1]]
    done = {0: Progress(committed=frozenset({0, 1, 4})), 1: Progress(committed=frozenset({2}), partial=3)}
    again, second = schedule(plan, done, [1.0] * 8, 2)
    assert again == plan
    assert second[0] == [Task(rank=0, batches=((4, 5),), wanted=frozenset({5}))]
    assert second[1] == [Task(rank=1, batches=((2, 3), (6, 7)), wanted=frozenset({3, 6, 7}))]


def test_another_number_of_processes_takes_what_no_rank_has() -> None:
    videos = [video(i) for i in range(8)]
    plan, _ = schedule(Assignment(batches=make_batches(videos, 2)), {}, [1.0] * 8, 2)
    done = {0: Progress(committed=frozenset({0, 1, 4})), 1: Progress(committed=frozenset({2}), partial=3)}
    plan, tasks = schedule(plan, done, [1.0] * 8, 3)
    assert plan.ranks == (0, 1, 2, 3, 4)
    assert tasks[0] == [
        Task(rank=0, batches=(), wanted=frozenset()),  # ends as it is
        Task(rank=2, batches=((4, 5),), wanted=frozenset({5})),
    ]
    assert tasks[1] == [
        Task(rank=1, batches=((2, 3),), wanted=frozenset({3})),  # ends with the video that its last shard cuts
        Task(rank=3, batches=((6, 7),), wanted=frozenset({6, 7})),
    ]
    assert tasks[2] == [Task(rank=4, batches=(), wanted=frozenset())]


def test_a_batch_holds_one_size() -> None:
    videos = [video(i, height=64 if i in {1, 4} else 48) for i in range(6)]
    assert make_batches(videos, 2) == ((0, 2), (1, 4), (3, 5))


def test_long_videos_count_more() -> None:
    # frames × pixels 3, 3 and 6 (times 3072 × 10): the mean is 4, and the model counts as one average decoding
    costs = estimated_costs([video(0, n_frames=30), video(1, n_frames=30), video(2, n_frames=60), video(3, n_frames=0)])
    assert costs == [1.75, 1.75, 2.5, 2.0]


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=30), st.integers(1, 5))
def test_a_division_is_a_partition_of_like_parts(costs: list[float], n: int) -> None:
    parts = divide({i: (i,) for i in range(len(costs))}, costs, n)
    assert sorted(i for part in parts for i in part) == list(range(len(costs)))
    loads = [sum(costs[i] for i in part) for part in parts]
    assert max(loads) - min(loads) <= max(costs) + 1e-9  # else the last one to come would have gone elsewhere


def test_a_plan_reads_back(tmp_path: Path) -> None:
    assert read_plan(tmp_path, 3) is None
    plan, _ = schedule(Assignment(batches=((0, 1), (2,))), {}, [1.0] * 3, 2)
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path, 3) == plan
    with pytest.raises(UserError, match=r"plan\.json .* each of the 4 videos once"):
        read_plan(tmp_path, 4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batches": 3}, "a list of values"),
        ({"batches": [[0, 1], [1]]}, "each of the 3 videos once"),
        ({"batches": [[0, 1], [True]]}, "whole numbers"),
        ({"batches": [[0, 1], [10**30]]}, "each of the 3 videos once"),
        ({"generations": [{"world_size": 0, "streams": []}]}, "from 1 to"),
        ({"generations": [{"world_size": 2, "streams": [{"rank": 0, "batches": []}]}]}, "number of its streams, 1"),
        ({"generations": [{"world_size": 1, "streams": [{"rank": 7, "batches": []}]}]}, "count up from 0"),
        ({"generations": [{"world_size": 1, "streams": [{"rank": 0, "batches": [2]}]}]}, "some of the 2 batches"),
        ({"generations": [{"world_size": 1, "streams": [{"rank": 0, "batches": [1, 1]}]}]}, "some of the 2 batches"),
        ({"checksun": ""}, "fails its checksum"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    """As from a first version, which has no checksum."""
    good = {"batches": [[0, 1], [2]], "generations": []}
    (tmp_path / "plan.json").write_text(json.dumps(good))
    assert read_plan(tmp_path, 3) == Assignment(batches=((0, 1), (2,)))
    (tmp_path / "plan.json").write_text(json.dumps({**good, **change}))
    with pytest.raises(UserError, match=rf"plan\.json.*{reason}"):
        read_plan(tmp_path, 3)


def test_a_changed_plan_fails_its_checksum(tmp_path: Path) -> None:
    plan, _ = schedule(Assignment(batches=((0, 1), (2,))), {}, [1.0] * 3, 1)
    write_plan(tmp_path, plan)
    path = tmp_path / "plan.json"
    path.write_text(path.read_text().replace("[[0, 1], [2]]", "[[0, 2], [1]]"))
    with pytest.raises(UserError, match="fails its checksum"):
        read_plan(tmp_path, 3)
