"""Tiny models, loaded once, and a folder of short videos for them."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from collect.vlm import VideoVlm, load_vlm
from tests.collect.tiny_models import BUILDERS
from tests.collect.video_files import EXACT, noise, write_video


@pytest.fixture(scope="session")
def vlm(tiny_vlm: Path) -> VideoVlm:
    return load_vlm(str(tiny_vlm), device="cpu")


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a family's tiny model, by the family's name."""
    return functools.cache(lambda family: BUILDERS[family](tmp_path_factory.mktemp(family)))


@pytest.fixture(scope="session")
def tiny_vlms(tiny_folders: Callable[[str], Path]) -> Callable[[str], VideoVlm]:
    """Tiny model of a family, by its name."""
    return functools.cache(lambda family: load_vlm(str(tiny_folders(family)), device="cpu"))


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven videos of different pictures; `v03` is not a video."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(11):
        frames = [noise(48, 64, seed=100 * i + t) for t in range(12)]
        write_video(folder / "videos" / f"v{i:02d}.mp4", frames, options=EXACT)
    (folder / "videos" / "v03.mp4").write_bytes(b"not a video")
    return folder
