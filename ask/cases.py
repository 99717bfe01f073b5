"""A case: one video with its questions, run up to the site.

Everything that an edit of the residuals does not change is computed once here. Edits start from the result.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ask.answers import answers
from ask.baselines import question_only_score
from ask.opened import AskedRun
from ask.packing import Asked, Sequences, letter_logits, packing_agrees, restrict, run_to, to_sequences
from ask.questions import N_OPTIONS, Item
from collect.data.perception_test import Video
from collect.errors import UserError
from collect.pipeline import in_order, worker_bytes
from collect.process.machine import default_workers
from collect.tokens.grid import TokenGrid
from collect.video.decode import decode_clip
from collect.video.sampling import FrameSampling
from collect.vlm import Prefix, VideoVlm

logger = logging.getLogger(__name__)

MAX_TOKEN_DIFFERENCE = 0.005
"""Relative difference between a token's stored and recomputed residual in float32 from which on the video, its
preprocessing or the model is another."""
MAX_VIDEO_DIFFERENCE = 0.05
"""The same of all tokens of a video together in 16-bit types, whose rounding single tokens may enlarge."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One video, its items in order, and the unedited model's answers to them."""

    video_id: str
    items: tuple[Item, ...]
    sequences: Sequences
    """Residuals at the site; question number = 3 x item + cyclic order."""
    correct: Int[Tensor, "item order"]
    values: Float[Tensor, "item order letter"]
    """Numbers that the letters stand for; NaN for non-counting questions."""
    logits: Float[Tensor, "item order letter"]
    mass: Float[Tensor, "item order"]

    def of_items(self, kept: Sequence[int]) -> Case:
        """The same video with some of its items only."""
        if len(kept) == len(self.items):
            return self
        index = torch.tensor(sorted(kept), device=self.correct.device)
        questions = [N_OPTIONS * item + order for item in sorted(kept) for order in range(N_OPTIONS)]
        return replace(
            self,
            items=tuple(self.items[item] for item in sorted(kept)),
            sequences=restrict(self.sequences, questions),
            correct=self.correct[index],
            values=self.values[index],
            logits=self.logits[index],
            mass=self.mass[index],
        )

    def about(self, subject: str) -> Case:
        """The same video with the items that count a subject only."""
        return self.of_items([place for place, item in enumerate(self.items) if item.subject == subject])

    @property
    def counting(self) -> tuple[int, ...]:
        """Places of the counting items."""
        return tuple(place for place, item in enumerate(self.items) if item.counting)


class Clips:
    """Prefixes of videos by id, of the clips up to the cut frames of their questions, each made when it is asked for.

    Args:
        vlm: the model.
        video: the video of an id.
        frames: which frames of a video make its clip.
    """

    def __init__(self, vlm: VideoVlm, video: Callable[[str], Video], frames: FrameSampling) -> None:
        self._vlm, self._video, self._frames = vlm, video, frames
        self._ahead: dict[str, Prefix] = {}

    def __getitem__(self, video_id: str) -> Prefix:
        """The prefix of a video, with what the vision tower makes of it.

        Raises:
            UserError: the video cannot be decoded.
        """
        prefix = self._ahead.pop(video_id, None)
        if prefix is None:
            prefix = self._prepared(self._video(video_id))
        return self._vlm.with_features([prefix])[0]

    def in_turn(self, video_ids: Sequence[str]) -> Iterator[str]:
        """The ids in their order, for a pass that asks for the prefix of each: clips are decoded ahead, in threads.

        Raises:
            UserError: a video cannot be decoded, when its turn has come.
        """
        videos = [self._video(video_id) for video_id in video_ids]
        workers = default_workers(worker_bytes(videos, self._frames), len(videos))
        prepared = in_order(self._prepared, videos, workers=workers, ahead=workers)
        for video_id, prefix in zip(video_ids, prepared, strict=True):
            self._ahead = {video_id: prefix}
            yield video_id
        self._ahead = {}

    def _prepared(self, video: Video) -> Prefix:
        assert video.path is not None, f"{video.video_id} has no file"
        return self._vlm.prefix(decode_clip(video.path, video.video_id, self._frames, video.cut_frame))


def embed_items(vlm: VideoVlm, prefix: Prefix, items: Sequence[Item], *, packed: bool) -> Sequences:
    """Embed all option orders of all items about one video."""
    suffixes = [vlm.suffix(text) for item in items for text in item.prompts]
    return to_sequences(vlm.embed([prefix] * len(suffixes), suffixes), packed=packed)


def packing_works(model: Asked, prefix: Prefix, items: Sequence[Item]) -> bool:
    """Check once, on one video, whether this model answers packed questions the same way as one by one."""
    suffixes = [model.vlm.suffix(text) for item in items[:2] for text in item.prompts]
    return packing_agrees(model, model.vlm.embed([prefix] * len(suffixes), suffixes))


def build_case(model: Asked, seq: Sequences, items: Sequence[Item]) -> Case:
    """Answer the items without an intervention.

    Args:
        model: the model.
        seq: the questions about one video, run up to the model's site.
        items: the items, in the order of their questions in `seq`.
    """
    with torch.no_grad():
        logits, mass = letter_logits(model, seq, seq.hidden)
    missing = ((float("nan"),) * N_OPTIONS,) * N_OPTIONS
    device = logits.device
    return Case(
        video_id=items[0].video_id,
        items=tuple(items),
        sequences=seq,
        correct=torch.tensor([item.correct_letters for item in items], device=device),
        values=torch.tensor([item.letter_values or missing for item in items], device=device),
        logits=logits[0].unflatten(0, (-1, N_OPTIONS)),
        mass=mass[0].unflatten(0, (-1, N_OPTIONS)),
    )


def edited_logits(
    model: Asked,
    case: Case,
    changes: Iterable[Float[Tensor, "visual d_model"]],
    batch_size: int,
) -> tuple[Float[Tensor, "edit item order letter"], Float[Tensor, "edit item order"]]:
    """Answer a case's items once per edit of its visual residuals.

    Args:
        model: the model, at the site where the case's residuals were read.
        case: the video and its questions.
        changes: what each edit adds to the residuals of the visual tokens; taken from the iterator batch by batch.
        batch_size: edits per forward.

    Returns:
        Letter logits, and the probability of the three letters together.
    """
    seq = case.sequences
    logits: list[Tensor] = []
    mass: list[Tensor] = []
    remaining = iter(changes)
    with torch.no_grad():
        while batch := list(itertools.islice(remaining, batch_size)):
            hidden = seq.hidden.repeat(len(batch), 1, 1)
            rows = torch.stack(batch).to(hidden.dtype).repeat_interleave(len(seq.hidden), dim=0)
            hidden[:, seq.visual_positions] += rows
            some_logits, some_mass = letter_logits(model, seq, hidden)
            logits.append(some_logits)
            mass.append(some_mass)
    orders = (-1, N_OPTIONS)
    return torch.cat(logits).unflatten(1, orders), torch.cat(mass).unflatten(1, orders)


def residuals_at(vlm: VideoVlm, seq: Sequences, site: str) -> Sequences:
    """Run embedded questions up to one site."""
    return run_to(vlm, seq, [site])[site]


class Cases:
    """The cases of a run at one site."""

    def __init__(self, asked: AskedRun, site: str) -> None:
        """Group the items by video."""
        self._asked = asked
        self.model = Asked.at(asked.vlm, site)
        self.clips = Clips(asked.vlm, asked.dataset.video, asked.frames)
        self._by_video: dict[str, list[Item]] = {}
        for item in asked.items:
            self._by_video.setdefault(item.video_id, []).append(item)
        self._records = {record.video_id: record for record in asked.store.videos}
        self._packed: bool | None = None

    @property
    def videos(self) -> list[str]:
        """Ids of all videos with items, in order."""
        return list(self._by_video)

    def items(self, video_id: str) -> list[Item]:
        """Items about one video."""
        return self._by_video[video_id]

    def grid(self, video_id: str) -> TokenGrid:
        """Where the visual tokens of a video lie."""
        return self._records[video_id].grid

    def annotated(self, video_id: str) -> Video:
        """A video with its annotations."""
        return self._asked.dataset.video(video_id)

    def build(self, video_id: str) -> Case:
        """Make a video's case.

        Raises:
            UserError: the video cannot be decoded, or is not what the activations were collected from.
        """
        vlm, site, items = self._asked.vlm, self.model.site, self._by_video[video_id]
        prefix = self.clips[video_id]
        self._check_frames(video_id, prefix)
        if self._packed is None:
            self._packed = packing_works(self.model, prefix, items)
            logger.info("questions of one video are run %s", "packed behind one prefix" if self._packed else "singly")
        seq = residuals_at(vlm, embed_items(vlm, prefix, items, packed=self._packed), site)
        self._check_residuals(video_id, seq.visual)
        return build_case(self.model, seq, items)

    def _check_frames(self, video_id: str, prefix: Prefix) -> None:
        if not np.array_equal(prefix.grid.frame_ids, self._records[video_id].grid.frame_ids):
            raise UserError(
                f"{self._asked.dataset.video(video_id).path} no longer gives the frames that its activations were "
                "collected from: put the old video and cut-frame mapping back, or collect again."
            )

    def _check_residuals(self, video_id: str, residuals: Tensor) -> None:
        """Compare all rows with the store's: damage anywhere in a video and changed preprocessing are found."""
        record = self._records[video_id]
        stored = self._asked.store.read(self.model.site, record.row_start, record.row_stop)
        change = stored.float() - residuals.float().cpu()
        if stored.dtype == torch.float32 and residuals.dtype == torch.float32:
            difference = float((change.norm(dim=1) / stored.norm(dim=1)).max())
            is_other = difference > MAX_TOKEN_DIFFERENCE
        else:
            difference = float(change.norm() / stored.float().norm())
            is_other = difference > MAX_VIDEO_DIFFERENCE
        if is_other:
            raise UserError(
                f"{self._asked.dataset.video(video_id).path} gives other residuals than those stored for it "
                f"({difference:.1%} off): put the old video back, or collect again into another run folder."
            )


def item_rows(case: Case, learned: Mapping[tuple[str, frozenset[str]], str]) -> list[dict[str, Any]]:
    """Rows of items.parquet for the questions about one video, with the unedited model's answers.

    Args:
        case: the video with its questions.
        learned: from `ask.baselines.question_only_answers`.
    """
    found = answers(case.logits, case.mass, case.correct, case.values)
    return [
        {
            "item": item.item_id,
            "video_id": item.video_id,
            "question_id": item.question_id,
            "kind": item.kind,
            "counting": item.counting,
            "subject": item.subject,
            "held_out": item.held_out,
            "question": item.question,
            "options": list(item.options),
            "values": None if item.values is None else list(item.values),
            "answer_id": item.answer_id,
            "hash": item.hash,
            "question_only": question_only_score(item, learned),
            "margin": float(found.margin[place]),
            "accuracy": float(found.accuracy[place]),
            "expected_count": float(found.expected_count[place]),
            "option_mass": float(found.option_mass[place]),
        }
        for place, item in enumerate(case.items)
    ]
