"""Training examples for the demo model: sampled frames, labels of every visual token, and tokenised questions.

Frames are drawn directly (no MP4 in between); held-out accuracy is measured on decoded MP4 files by
`demo.vlm.evaluate`, from scenes of another seed.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ask.questions import LETTERS, prompt
from demo.vlm.token_labels import ASKED, HAPPENED, SEEN, asked_about, relevant_tokens, token_labels
from demo.world.draw import Painter
from demo.world.questions import Item, items
from demo.world.scene import SAMPLES, Scene
from demo.world.script import draw_scene

SHORT_SIDE = 168  # drawn at this size and squashed to the model's: the blur of a decoded 240-pixel video
CHUNK = 64


def sampled_frames(scene: Scene, image_px: int) -> np.ndarray:
    """The frames the model would sample from the scene's video, uint8 [SAMPLES, image_px, image_px, 3]."""
    painter = Painter(scene, SHORT_SIDE)
    frames = [
        Image.fromarray(painter.frame(float(t))).resize((image_px, image_px), Image.Resampling.BICUBIC)
        for t in scene.sample_times()
    ]
    assert len(frames) == SAMPLES
    return np.stack([np.asarray(f) for f in frames])


def _draw_chunk(seed: int, videos: range, image_px: int, grid: int) -> tuple[np.ndarray, np.ndarray]:
    scenes = [draw_scene(seed, i) for i in videos]
    labels = [np.concatenate(token_labels(scene, grid), -1).reshape(SAMPLES * grid**2, -1) for scene in scenes]
    return np.stack([sampled_frames(scene, image_px) for scene in scenes]), np.packbits(np.stack(labels), axis=-1)


def build_pool(folder: Path, *, seed: int, n_videos: int, image_px: int, grid: int, workers: int) -> None:
    """Draw the scenes 0..n_videos of a world into `frames.npy` and their packed labels into `labels.npy`."""
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "frames.part.npy"
    frames = np.lib.format.open_memmap(
        part, mode="w+", dtype=np.uint8, shape=(n_videos, SAMPLES, image_px, image_px, 3)
    )
    labels = np.zeros((n_videos, SAMPLES * grid**2, -(-(len(SEEN) + len(HAPPENED)) // 8)), np.uint8)
    chunks = [range(a, min(a + CHUNK, n_videos)) for a in range(0, n_videos, CHUNK)]
    # A worker that is forked from a process with threads may wait for ever for a lock that one of them held.
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, mp_context=context) as executor,
        tqdm(total=n_videos, unit="video", desc="draw") as bar,
    ):
        jobs = [executor.submit(_draw_chunk, seed, chunk, image_px, grid) for chunk in chunks]
        for chunk, job in zip(chunks, jobs, strict=True):
            frames[chunk.start : chunk.stop], labels[chunk.start : chunk.stop] = job.result()
            bar.update(len(chunk))
    frames.flush()
    np.save(folder / "labels.npy", labels)
    part.replace(folder / "frames.npy")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about one video of the pool, with what its answer is read from."""

    item: Item
    asked: int
    """Index into ASKED."""
    relevant: np.ndarray
    """Visual tokens the question asks about, bool [V]."""


class Pool:
    """Drawn scenes with their labels and questions, V = SAMPLES · grid² visual tokens per video."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed = seed
        self.frames = np.load(folder / "frames.npy", mmap_mode="r")
        self._packed = np.load(folder / "labels.npy")
        self._questions: dict[int, list[Question]] = {}

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def tabletop(self) -> np.ndarray:
        """Numbers of the videos that show a tabletop, not cups."""
        return np.array([i for i in range(len(self)) if draw_scene(self.seed, i).kind == "tabletop"])

    @cached_property
    def grid(self) -> int:
        """Rows (and columns) of visual tokens per frame."""
        return round((self._packed.shape[1] / SAMPLES) ** 0.5)

    def labels(self, videos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """SEEN and HAPPENED labels of some videos, bool [video, V, n]."""
        bits = np.unpackbits(self._packed[videos], axis=-1).astype(bool)
        return bits[..., : len(SEEN)], bits[..., len(SEEN) : len(SEEN) + len(HAPPENED)]

    def questions(self, video: int) -> list[Question]:
        """All questions about one video."""
        if video not in self._questions:
            scene = draw_scene(self.seed, video)
            shape = (SAMPLES, self.grid, self.grid, -1)
            seen, happened = (labels[0].reshape(shape) for labels in self.labels(np.array([video])))
            asked = [(item, asked_about(item, scene)) for item in items(scene)]
            self._questions[video] = [
                Question(item=item, asked=ASKED.index(name), relevant=relevant_tokens(name, seen, happened).reshape(-1))
                for item, name in asked
            ]
        return self._questions[video]


@dataclass(frozen=True, kw_only=True)
class Block:
    """One tokenised question."""

    ids: list[int]
    answer: int
    """Id of the right answer: a letter, or a word if no options are offered."""
    options: list[int]
    """Positions of the three option words in `ids`; empty without options."""
    correct: int
    """Which of the options is right."""


def encode_block(tokenizer: Any, item: Item, with_options: bool, rng: np.random.Generator) -> Block:
    """One user text with the generation prompt and its right answer."""
    answer_id = int(rng.integers(3))
    if with_options:
        text = prompt(item.question, item.options(answer_id, bool(rng.integers(2))))
        answer = LETTERS[answer_id]
    else:
        text, answer = f"{item.question} Answer with one word.", item.answer
    ids: list[int] = tokenizer(f"{text} assistant", add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids, text
    marks = tokenizer.convert_tokens_to_ids([f"{letter}." for letter in LETTERS])
    options = [ids.index(mark) + 1 for mark in marks] if with_options else []
    return Block(ids=ids, answer=int(tokenizer.convert_tokens_to_ids(answer)), options=options, correct=answer_id)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """K question blocks about each of B videos, packed into T text positions per video; position -1 means none."""

    ids: np.ndarray  # [B, T]
    block: np.ndarray  # [B, T] block number, -1 = padding
    place: np.ndarray  # [B, T] position inside its block
    last: np.ndarray  # [B, K] text position of each block's last token
    options: np.ndarray  # [B, K, 3] text positions of the option words
    correct: np.ndarray  # [B, K] which option is right
    answer: np.ndarray  # [B, K] token of the right answer
    asked: np.ndarray  # [B, K] index into ASKED
    relevant: np.ndarray  # [B, K, V] what each block asks about


def pack_texts(
    pool: Pool,
    videos: np.ndarray,
    tokenizer: Any,
    rng: np.random.Generator,
    *,
    blocks: int,
    length: int,
    words: float,
    favoured: Collection[str] = (),
) -> Texts:
    """Ask `blocks` questions about each video, as many as fit into `length`; the share `words` without options.

    Questions of the `favoured` kinds are asked three times as often as the others.
    """
    size = len(videos)
    n_visual = SAMPLES * pool.grid**2
    out = Texts(
        ids=np.zeros((size, length), np.int64),
        block=np.full((size, length), -1, np.int64),
        place=np.zeros((size, length), np.int64),
        last=np.full((size, blocks), -1, np.int64),
        options=np.full((size, blocks, 3), -1, np.int64),
        correct=np.zeros((size, blocks), np.int64),
        answer=np.zeros((size, blocks), np.int64),
        asked=np.zeros((size, blocks), np.int64),
        relevant=np.zeros((size, blocks, n_visual), bool),
    )
    for b, video in enumerate(videos.tolist()):
        questions = [q for q in pool.questions(video) for _ in range(3 if q.item.kind in favoured else 1)]
        rounds = -(-blocks // len(questions))
        order = np.concatenate([rng.permutation(len(questions)) for _ in range(rounds)])[:blocks]
        at = 0
        for j, question in enumerate(questions[i] for i in order):
            one = encode_block(tokenizer, question.item, rng.random() >= words, rng)
            if at + len(one.ids) > length:
                break
            span = slice(at, at + len(one.ids))
            out.ids[b, span], out.block[b, span], out.place[b, span] = one.ids, j, np.arange(len(one.ids))
            if one.options:
                out.options[b, j], out.correct[b, j] = at + np.asarray(one.options), one.correct
            at += len(one.ids)
            out.last[b, j], out.answer[b, j] = at - 1, one.answer
            out.asked[b, j], out.relevant[b, j] = question.asked, question.relevant
    return out
