"""The toy VLM over videos of four time steps with one token each: evidence is what happens in a step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ask.packing import Asked
from ask.questions import Item
from collect.data.perception_test import Segment, Video
from collect.tokens.grid import TokenGrid
from steer.codes import CodedCases, Scene, VideoCodes
from steer.effects import Editor
from steer.mechanism.matched import Bench
from steer.reference import summarise
from steer.targets import Target
from tests.steer.toy import LETTERS, N_VISUAL, SUBJECT, ToyVlm, counting_item, toy_case, toy_sae, visual

GRID = TokenGrid.uniform(
    n_rows=1,
    n_cols=1,
    spans_s=np.array([[float(step), step + 1.0] for step in range(N_VISUAL)]),
    frame_ids=np.arange(N_VISUAL, dtype=np.int64),
)
EVENT = "lamp flashing"


def segment(first: int, last: int | None = None, label: str = EVENT, number: int = 0) -> Segment:
    """A segment over whole time steps."""
    end = (first if last is None else last) + 1.0
    return Segment(id=number, label=label, label_id=0, parent_objects=(), start_s=float(first), end_s=end)


def video_of(video_id: str, actions: Sequence[Segment] = (), sounds: Sequence[Segment] = ()) -> Video:
    return Video(
        video_id=video_id,
        path=Path(f"{video_id}.mp4"),
        split="valid",
        frame_rate=1.0,
        n_frames=N_VISUAL,
        height=8,
        width=8,
        actions=tuple(actions),
        sounds=tuple(sounds),
    )


class ToyCases(CodedCases):
    """Videos by their evidence per step; `noise` stands in dimensions 4 to 7."""

    def __init__(
        self,
        evidence: Mapping[str, Sequence[float]],
        items: Sequence[Item],
        videos: Mapping[str, Video] | None = None,
        noise: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.vlm = ToyVlm()
        self._evidence, self._items, self._videos = evidence, items, videos or {}
        self._noise = noise or {}
        self.sae = toy_sae()

    def __getitem__(self, video_id: str) -> Any:
        own = tuple(item for item in self._items if item.video_id == video_id)
        prefix = visual(torch.tensor(self._evidence[video_id]), self._noise.get(video_id))
        case = toy_case(self.vlm, prefix, own)
        return case, VideoCodes.of(self.sae, case.sequences.visual)

    def scene(self, video_id: str) -> Scene:
        return Scene(video=self._videos.get(video_id, video_of(video_id)), grid=GRID)


def bench_of(
    evidence: Mapping[str, Sequence[float]],
    counts: Mapping[str, int],
    videos: Mapping[str, Video] | None = None,
    noise: Mapping[str, torch.Tensor] | None = None,
    options: tuple[str, str, str] = ("1", "2", "3"),
) -> Bench:
    """A bench whose questions are answered by `counts`."""
    items = tuple(
        counting_item(video_id, options=options, answer_id=options.index(str(count)))
        for video_id, count in counts.items()
    )
    cases = ToyCases(evidence, items, videos, noise)
    sample = torch.cat([cases[video_id][0].sequences.visual for video_id in evidence])
    editor = Editor(
        model=Asked(vlm=cases.vlm, site="resid/0", letters=LETTERS),
        sae=cases.sae,
        reference=summarise(sample, cases.sae),
        batch_size=3,
    )
    return Bench(editor=editor, cases=cases, items=items, seed=0)


def expected_count(evidence: Sequence[float]) -> float:
    """What the unedited toy expects where a video has this evidence, worked out from its definition."""
    seen = 2.0 * sum(evidence) / 9  # the last of nine tokens adds twice the mean evidence that it sees
    weights = np.exp(seen * np.array([1.0, 2.0, 3.0]))
    return float(weights @ np.array([1.0, 2.0, 3.0]) / weights.sum())


def target(*latents: int) -> Target:
    return Target(id="-".join(map(str, latents)), latents=latents, selected_by="given", subject=SUBJECT)
