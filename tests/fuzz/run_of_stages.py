"""A tiny run that went through the real stages, and the same run with each long stage stopped half-way.

    FOLDER/reference/   data, ids.txt, hub, model: the inputs; run, hub-run; plain, packed: archives; downloaded
    FOLDER/stopped/     activations, SAE, features, steer, download: what stands in the world's place instead
    FOLDER/published/   what the mirror serves
    FOLDER/world/       where the reference was made and where every trial has its copy: paths in files stay the same

Runs in a process of its own, since the stages leave modules and threads behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import pkgutil
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from demo.vlm.architecture import save_untrained
from tests.collect.file_server import FileServer, serving, zip_bytes
from tests.features.conftest import annotation_of, plant_videos, write_data
from tests.fuzz.commands import COMMANDS, MIRROR
from video_sae import main

N_VIDEOS = 6
QUESTIONS = (
    ("How many red balls appear in the video?", ["1", "2", "3"], "object counting"),
    ("How many times does the person clap?", ["2", "4", "6"], "action counting"),
    ("What colour is the ball?", ["red", "green", "blue"], "colour"),
)


def build(folder: Path) -> None:
    """Make the reference and the stopped stages below `folder`."""
    world = folder / "world"
    world.mkdir(parents=True)
    os.chdir(world)
    write_inputs(world)
    _run("profile")
    _run("profile hub")
    _stop("resume collect", folder, "collect.store.writer.StoreWriter.add_video", after=5)
    _run("collect")
    _stop("resume train", folder, "train_sae.trainer.SaeTrainer.train_on", after=5)
    _run("train")
    for name in ("train another", "evaluate"):
        _run(name)
    _stop("resume features", folder, "features.run.measure_activity", after=0)
    _run("features")
    _stop("resume steer", folder, "steer.run.finish", after=0)
    for name in ("steer", "report", "export", "archive plain", "archive packed"):
        _run(name)
    _download(folder)
    shutil.copytree(world, folder / "reference")


def write_inputs(world: Path) -> None:
    """The data folder, a list of its ids, the hub's form of its questions, and a random model."""
    planted = plant_videos(N_VIDEOS)
    data = write_data(world / "data", planted, with_videos=N_VIDEOS)
    ids = [item.video.video_id for item in planted]
    asked = {}
    rows = []
    for number, item in enumerate(planted):
        questions = [
            {
                "id": place,
                "question": text,
                "options": options,
                "answer_id": (number + place) % 3,
                "area": "memory",
                "reasoning": "descriptive",
                "tag": [tag],
            }
            for place, (text, options, tag) in enumerate(QUESTIONS)
        ]
        video_id = item.video.video_id
        asked[video_id] = {"metadata": annotation_of(item.video)["metadata"], "mc_question": questions}
        for question in questions:
            own = {name: question[name] for name in ("question", "options", "area", "reasoning", "tag")}
            texts = {"question_id": str(question["id"]), "answer_id": str(question["answer_id"])}
            rows.append({"video_name": video_id, **own, **texts})
    (data / "annotations" / "mc_question.json").write_text(json.dumps(asked))
    (data / "cut_frame_mapping_all.json").write_text(json.dumps({ids[0]: 30, ids[1]: 35}))
    (world / "ids.txt").write_text("\n".join(ids) + "\n")
    shutil.copytree(data / "videos", world / "hub" / "videos")
    pq.write_table(pa.Table.from_pylist(rows), world / "hub" / "valid.parquet")
    save_untrained(world / "model")


def _download(folder: Path) -> None:
    """Publish the data, fetch it, and keep what a broken connection leaves."""
    data, published = folder / "world" / "data", folder / "published"
    videos = {f"sample/{path.name}": path.read_bytes() for path in sorted((data / "videos").iterdir())}
    annotations = {path.name: path.read_bytes() for path in sorted((data / "annotations").iterdir())}
    for path, content in {
        "zip_data/sample_videos.zip": zip_bytes(videos),
        "zip_data/sample_annotations.zip": zip_bytes(annotations),
        "misc/cut_frame_mapping_train.json": (data / "cut_frame_mapping_all.json").read_bytes(),
        "misc/cut_frame_mapping_valid.json": b"{}",
    }.items():
        (published / path).parent.mkdir(parents=True, exist_ok=True)
        (published / path).write_bytes(content)
    command = COMMANDS["download"]
    assert command.stopped is not None
    with mirror(published) as server:
        server.cuts += [2**30] * 3 + [3000, 0, 0, 0]
        assert main([*command.words]) == 2
        shutil.copytree(folder / "world" / command.stopped, folder / "stopped" / command.stopped)
        server.cuts.clear()
        _run("download")


@contextlib.contextmanager
def mirror(published: Path) -> Iterator[FileServer]:
    """Serve what is published under the mirror's address, as a proxy of this process alone."""
    files = {
        f"{MIRROR}/{path.relative_to(published)}": path.read_bytes() for path in published.rglob("*") if path.is_file()
    }
    with serving(files) as server, mock.patch.dict(os.environ, {"http_proxy": server.url, "no_proxy": ""}):
        yield server


def _run(name: str) -> None:
    status = main([*COMMANDS[name].words])
    assert status == 0, f"{name} ended with {status}"


def _stop(name: str, folder: Path, function: str, *, after: int) -> None:
    """Interrupt a stage when it calls a function, and keep what it leaves below `stopped`."""
    command = COMMANDS[name]
    assert command.stopped is not None
    with _interrupted(function, after):
        status = main([*command.words])
    assert status == 130, f"{name} was to be interrupted, but ended with {status}"
    shutil.copytree(folder / "world" / command.stopped, folder / "stopped" / command.stopped)


@contextlib.contextmanager
def _interrupted(function: str, after: int) -> Iterator[None]:
    """Ctrl-C when a function is called once more than `after` times."""
    module, _, name = function.rpartition(".")
    owner = pkgutil.resolve_name(module)
    usual, calls = getattr(owner, name), iter(range(after))

    def called(*arguments: object, **named: object) -> object:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return usual(*arguments, **named)

    with mock.patch.object(owner, name, called):
        yield
