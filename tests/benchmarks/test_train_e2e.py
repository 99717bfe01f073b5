"""The plumbing of the benchmark of a whole training."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.loader import read_in_order
from benchmarks.sizes import Size, batches
from benchmarks.train_e2e import SITE, VIDEO_TOKENS, bare_step, drop_pages, planted_store, train
from collect.config import CHUNK_ROWS
from collect.data.split import held_out_ids

TINY = Size(16, 64, 4, 1024, rounds=1)


def test_the_store_has_tokens_for_every_step_and_one_held_out_video(tmp_path: Path) -> None:
    store = planted_store(tmp_path / "activations", TINY, n_steps=9)
    aside = held_out_ids((video.video_id, video.split) for video in store.videos)
    n_train = sum(video.n_tokens for video in store.videos if video.video_id not in aside)
    assert len(aside) == 1
    assert 9 * 1024 <= n_train < 9 * 1024 + VIDEO_TOKENS
    # The same tokens as those of the bare step, in bfloat16.
    planted = torch.cat(batches(TINY)).bfloat16()
    assert torch.equal(store.read(SITE, 0, VIDEO_TOKENS), planted)
    drop_pages(store)
    read_in_order(store.shards(SITE), torch.empty(CHUNK_ROWS, TINY.d_in, dtype=torch.bfloat16))
    assert torch.equal(store.read(SITE, 0, VIDEO_TOKENS), planted)


def test_the_bare_step_trains() -> None:
    step = bare_step(TINY)
    losses = [float(getattr(step(), "mse")) for _ in range(40)]  # noqa: B009
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_the_loop_s_rate_is_that_of_its_own_record(tmp_path: Path) -> None:
    planted_store(tmp_path / "activations", TINY, n_steps=12)
    rate, outside_s = train(tmp_path, TINY, 12, log_every=4)
    text = (tmp_path / "run" / "sae" / "sae" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12]
    later = [line["tokens_per_s"] for line in lines[1:]]
    assert rate == pytest.approx(2 / sum(1 / value for value in later))
    assert outside_s > 0
