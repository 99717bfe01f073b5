"""A run folder with real videos, a tiny random VLM, collected activations and a random SAE."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from collect.config import CollectConfig
from collect.reading import ActivationStore
from collect.run import collect
from demo.vlm.architecture import save_untrained
from tests.collect.video_files import noise, write_video
from train_sae.lens.export import save_sae
from train_sae.sae import Sae

SITE = "resid/0"
N_TRAIN, N_HELD_OUT = 4, 4
D_SAE = 24
SAE_NAME = "random"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("steer-vlm"))


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight short videos, each with two counting questions of two kinds and one non-counting question."""
    folder = tmp_path_factory.mktemp("steer-data")
    rng = np.random.default_rng(0)
    annotations = {}
    for number in range(N_TRAIN + N_HELD_OUT):
        video_id = f"video_{number}"
        frames = [noise(32, 40, seed=10 * number + t) for t in range(4)]
        write_video(folder / "videos" / f"{video_id}.mp4", frames)
        questions = [
            ("How many red balls appear in the video?", ["1", "2", "3"], "object counting"),
            ("How many times does the person tap something?", ["2", "4", "6"], "action counting"),
            ("What colour is the lamp?", ["red", "green", "blue"], "colour"),
        ]
        annotations[video_id] = {
            "metadata": {
                "split": "train" if number < N_TRAIN else "valid",
                "video_id": video_id,
                "frame_rate": 30.0,
                "num_frames": 4,
                "resolution": [32, 40],
                "audio_samples": 0,
                "audio_sample_rate": 0,
                "is_cup_game": 0,
                "is_camera_moving": 0,
            },
            "mc_question": [
                {
                    "id": place,
                    "question": text,
                    "options": options,
                    "answer_id": int(rng.integers(3)),
                    "area": "memory",
                    "reasoning": "descriptive",
                    "tag": [tag],
                }
                for place, (text, options, tag) in enumerate(questions)
            ],
        }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "all.json").write_text(json.dumps(annotations))
    return folder


@pytest.fixture(scope="session")
def collected(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, data_folder: Path) -> Path:
    """A run folder with activations and an SAE; copy it before writing to it (`run_folder`)."""
    run = tmp_path_factory.mktemp("steer-run")
    collect(
        CollectConfig(
            data=data_folder, model=str(model_folder), out=run, sites=(SITE,), frames="2", device="cpu", shard_rows=256
        )
    )
    store = ActivationStore.open(run / "activations")
    save_random_sae(run / "sae" / SAE_NAME, store, SITE)
    return run


@pytest.fixture
def run_folder(tmp_path: Path, collected: Path) -> Path:
    """A copy of the run that a test may write to."""
    return Path(shutil.copytree(collected, tmp_path / "run"))


def save_random_sae(folder: Path, store: ActivationStore, site: str, **metadata: str) -> None:
    """An SAE whose latents read and write random directions of the site; about one in six fires on a token."""
    residuals = store.read(SITE, 0, store.n_tokens).float()
    generator = torch.Generator().manual_seed(0)
    decoder = torch.randn(D_SAE, residuals.shape[1], generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    sae = Sae(
        architecture="topk",
        k=4,
        W_enc=decoder.T.contiguous(),
        W_dec=decoder,
        b_enc=torch.zeros(D_SAE),
        b_dec=residuals.mean(dim=0),
        threshold=torch.zeros(D_SAE),
        metadata={
            "hook_name": site,
            "store_fingerprint": store.fingerprint,
            "model_fingerprint": store.model["fingerprint"],
            **metadata,
        },
    )
    save_sae(folder, sae, torch.full((D_SAE,), 1 / 6))
