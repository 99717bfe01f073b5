"""What several rooms' tests share: the tiny random model, a small generated world, and Hypothesis without a clock."""

import os
from pathlib import Path

import hypothesis
import pytest

from demo.vlm.architecture import save_untrained
from demo.world.generate import WorldConfig, generate

pytest_plugins = ["tests.small_run"]

# Triton reads this when it is first imported, which any test may bring about.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("vlm"), size="tiny")


@pytest.fixture(scope="session")
def world_config() -> WorldConfig:
    return WorldConfig(seed=5, n_videos=9)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory, world_config: WorldConfig) -> Path:
    """Nine real videos with annotations and truth; every third is held out."""
    return generate(tmp_path_factory.mktemp("world"), world_config)
