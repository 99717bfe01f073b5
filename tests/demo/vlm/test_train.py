from pathlib import Path

import numpy as np
import pytest
import torch

import demo.vlm.train as module
from demo.vlm.architecture import VIDEO_TOKEN_ID
from demo.vlm.start_weights import whitening_patches
from demo.vlm.train import Trainer, TrainVlmConfig, cosine
from demo.vlm.training_batches import Batch, Frames, draw_frames
from demo.vlm.training_losses import attention_mask, label_loss, tracking_targets


def small(out: Path, **changes: int) -> TrainVlmConfig:
    sizes = {"videos": 6, "batch": 2, "see_frames": 4, "watch_blocks": 2, "answer_blocks": 4}
    return TrainVlmConfig(out=out, threads=torch.get_num_threads(), **(sizes | changes))


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    made = Trainer(small(tmp_path_factory.mktemp("training")))
    made.model.eval()
    made.store_projected()
    made.store_watched()
    return made


def batch_of(trainer: Trainer, seed: int, words: float = 0.5) -> Batch:
    return trainer.draw_batch(np.random.default_rng(seed), blocks=4, words=words)


def test_the_mask_by_hand() -> None:
    # three tokens of the prefix, then text of blocks 0, 0, 1
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1],
    ]
    assert attention_mask(torch.tensor([[0, 0, 1]]), n_prefix=3)[0, 0].int().tolist() == expected


def test_label_loss_by_hand() -> None:
    # two labels at logit 0: each costs ln 2; one is positive, so the sum is divided by 1
    logits, target = torch.zeros(1, 2), torch.tensor([[True, False]])
    assert float(label_loss(logits, target)) == pytest.approx(2 * np.log(2))


def test_the_cosine_by_hand() -> None:
    # warm-up: step 24 of 50 is half of the peak, and the cosine has hardly begun
    assert cosine(24, 10_000, 1.0) == pytest.approx(25 / 50, abs=1e-4)
    # half way the cosine is 0.5: 0.02 + 0.98 * 0.5
    assert cosine(500, 1000, 2.0) == pytest.approx(2 * 0.51)
    assert cosine(1000, 1000, 2.0) == pytest.approx(2 * 0.02)


def test_tracking_looks_around_the_same_cell_of_earlier_frames() -> None:
    # grid 2: every cell is a neighbour of every other; one word before the video
    target = tracking_targets(2, 1)
    assert target.shape == (2, 32, 33)
    assert target[0, 3].tolist() == [1.0] + [0.0] * 32  # nothing is earlier than the first frame
    third = target[:, 9]  # frame 2: cells of frames 0 and 1 are columns 1-8, of frame 1 alone 5-8
    torch.testing.assert_close(third[0, :9], torch.full((9,), 1 / 9))
    torch.testing.assert_close(third[1, :9], torch.tensor([0.2, 0, 0, 0, 0, 0.2, 0.2, 0.2, 0.2]))
    # grid 4: the corner has three neighbours
    assert int((tracking_targets(4, 1)[1, 16, 1:] > 0).sum()) == 4


def test_whitened_patches_have_unit_covariance() -> None:
    mixing = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))
    patches = torch.randn(4000, 12, generator=torch.Generator().manual_seed(1)) @ mixing + 3
    pixels = patches.reshape(1000, 2, 2, 3, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(1000, 3, 4, 4)
    weight, bias = whitening_patches(pixels, patch_px=2, width=5)
    out = torch.nn.functional.conv2d(pixels, weight, bias, stride=2).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(out), torch.eye(5), atol=2e-3, rtol=0)
    torch.testing.assert_close(out.mean(1), torch.zeros(5), atol=2e-3, rtol=0)


def test_a_packed_block_is_the_single_prompt(trainer: Trainer) -> None:
    batch = batch_of(trainer, 0)
    with torch.no_grad():
        text, _ = trainer.read(batch)
        block = 1
        words = batch.ids[0][batch.block[0] == block]
        visual = torch.full((trainer.n_visual,), VIDEO_TOKEN_ID)
        pixels = torch.from_numpy(trainer.pool.frames[batch.videos[:1].numpy()]).permute(0, 1, 4, 2, 3) / 127.5 - 1
        alone = trainer.model(
            input_ids=torch.cat([trainer.prefix, visual, words])[None], pixel_values_videos=pixels
        ).logits[0, -1]
        packed = trainer.model.lm_head(text[0, batch.last[0, block]])
    # the stored states are in half precision
    torch.testing.assert_close(packed, alone, atol=2e-3, rtol=2e-2)


def test_every_stage_changes_its_own_part_only(trainer: Trainer) -> None:
    layers = trainer.decoder.layers
    parts = {
        "vision": [trainer.tower, trainer.model.model.multi_modal_projector],
        "early": [trainer.model.get_input_embeddings(), layers[:2]],
        "late": [layers[2:], trainer.decoder.norm, trainer.model.lm_head],
    }
    batch, frames = batch_of(trainer, 1), draw_frames(trainer.pool, 4, np.random.default_rng(0))
    for trained, loss_of in (
        ("vision", lambda: trainer.see(frames)),
        ("early", lambda: trainer.watch(batch)),
        ("late", lambda: trainer.answer(batch)),
        ("late", lambda: trainer.answer(batch, through_prefix=True)),
    ):
        trainer.model.requires_grad_(False)
        for part in parts[trained]:
            part.requires_grad_(True)
        trainer.model.zero_grad(set_to_none=True)
        loss_of()[0].backward()
        for name, modules in parts.items():
            gradients = [p.grad is not None for m in modules for p in m.parameters()]
            assert all(gradients) if name == trained else not any(gradients), (trained, name)


def test_batches_are_fixed_by_their_seed(trainer: Trainer) -> None:
    first, second = batch_of(trainer, 5), batch_of(trainer, 5)
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in vars(first))
    assert not torch.equal(first.ids, batch_of(trainer, 6).ids)


def test_readers_are_the_last_token_and_the_option_words(trainer: Trainer) -> None:
    batch = batch_of(trainer, 7, words=0.0)
    tokenizer = trainer.processor.tokenizer
    words = tokenizer.convert_ids_to_tokens(batch.ids[0, batch.options[0, 0]].tolist())
    marks = tokenizer.convert_ids_to_tokens(batch.ids[0, batch.options[0, 0] - 1].tolist())
    assert marks == ["A.", "B.", "C."]
    assert len(set(words)) == 3
    assert tokenizer.convert_ids_to_tokens(batch.ids[0, batch.last[0, 0]].item()) == "assistant"
    rows, blocks, at = batch.readers()
    assert len(at) == 4 * int((batch.last >= 0).sum())
    assert torch.equal(batch.block[rows, at], blocks)


def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", 1)

    def run(out: Path, fail_at: int | None) -> Trainer:
        out.mkdir(exist_ok=True)
        if not (out / "pool").exists():
            (out / "pool").symlink_to(tmp_path / "pool")
        trainer = Trainer(small(out))
        calls = 0

        def loss_of(batch: Frames) -> tuple[torch.Tensor, dict[str, float]]:
            nonlocal calls
            if calls == fail_at:
                raise KeyboardInterrupt
            calls += 1
            return trainer.see(batch)

        trainer.run_stage(
            "see",
            steps=4,
            lr=0.01,
            trained=[trainer.tower],
            draw=lambda rng, _: draw_frames(trainer.pool, 4, rng),
            loss_of=loss_of,
        )
        return trainer

    Trainer(small(tmp_path))  # draws the pool that both runs share
    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 2)
    resumed = run(tmp_path / "cut", None)
    assert resumed.done == {"see": 4}
    for a, b in zip(whole.tower.parameters(), resumed.tower.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_prefix_s_own_work_counts_in_the_last_stage_only(trainer: Trainer) -> None:
    batch = batch_of(trainer, 3)
    with torch.no_grad():
        trainer.model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(0))
    trainer.model.requires_grad_(False)
    # The first layer's feed-forward part at visual tokens reaches the text through later keys and values alone.
    trainer.decoder.layers[2].requires_grad_(True)
    found = []
    for through_prefix in (False, True):
        trainer.model.zero_grad(set_to_none=True)
        loss, _ = trainer.answer(batch, through_prefix=through_prefix)
        loss.backward()
        found.append((loss.item(), trainer.decoder.layers[2].mlp.down_proj.weight.grad.clone()))
    (loss, without), (same, through) = found
    assert loss == pytest.approx(same, rel=1e-5)
    assert (through - without).norm() > 0.01 * without.norm()
