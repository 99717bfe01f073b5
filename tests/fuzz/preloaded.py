"""What the server of forks imports once, so that a trial's process has it already."""

import sys

sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]  # timm imports it where it is installed, at length

import tqdm.std  # noqa: E402

tqdm.std.TqdmDefaultWriteLock.mp_lock = None  # a semaphore of the system, which a killed process would leave behind

import datasets  # noqa: E402, F401
import obstore.store  # noqa: E402, F401
import pyarrow.parquet  # noqa: E402, F401
import timm  # noqa: E402, F401
import torch  # noqa: E402
import transformers.models.perception_lm.modeling_perception_lm  # noqa: E402
import transformers.models.perception_lm.processing_perception_lm  # noqa: E402
import transformers.models.timm_wrapper.modeling_timm_wrapper  # noqa: E402, F401
import tyro  # noqa: E402, F401
import zarr  # noqa: E402, F401

import collect.run  # noqa: E402, F401
import features.run  # noqa: E402, F401
import train_sae.quality.splice  # noqa: E402
import train_sae.run  # noqa: E402, F401
import video_sae  # noqa: E402, F401
from tests.fuzz import run_of_stages  # noqa: E402, F401

torch.set_num_threads(1)
