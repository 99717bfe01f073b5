import numpy as np
import pytest
import torch

from demo.architecture import VIDEO_TOKEN_ID
from demo.train_vlm import Trainer, TrainVlmConfig, attention_masks, auxiliary_loss, cosine
from demo.training_data import build_pool, sampled_frames
from demo.world import draw_scene


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    folder = tmp_path_factory.mktemp("training")
    build_pool(folder / "pool.npy", seed=1000, n_videos=3, image_px=112, workers=1)
    threads = torch.get_num_threads()
    made = Trainer(TrainVlmConfig(pool=folder / "pool.npy", out=folder / "out", batch=2, blocks=4, threads=threads))
    made.model.eval()
    return made


def test_masks_by_hand() -> None:
    # one word, two visual tokens, then text of blocks 0, 0, 1
    full, blind = attention_masks(torch.tensor([[0, 0, 1]]), n_prefix=3, n_visual=2)
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1],
    ]
    assert full[0, 0].int().tolist() == expected
    # text rows lose columns 1 and 2, the visual tokens; the prefix's own rows stay
    assert blind[0, 0, 3:, 1:3].sum() == 0
    assert torch.equal(blind[0, 0, :3], full[0, 0, :3])
    assert torch.equal(blind[0, 0, 3:, 3:], full[0, 0, 3:, 3:])


def test_auxiliary_loss_by_hand() -> None:
    # two labels at logit 0: each costs ln 2; one is positive, so the sum is divided by 1
    logits, target = torch.zeros(1, 2), torch.tensor([[True, False]])
    assert float(auxiliary_loss(logits, target)) == pytest.approx(2 * np.log(2))


def test_a_packed_block_is_the_single_prompt(trainer: Trainer) -> None:
    batch = trainer.batches.draw(np.random.default_rng(0), open_share=0.5, with_text=True)
    with torch.no_grad():
        prefix = trainer._prefix_embeds(batch)
        embeds = torch.cat([prefix, trainer.model.get_input_embeddings()(batch.ids)], 1)
        position = torch.cat(
            [torch.arange(trainer.n_prefix)[None].expand(len(prefix), -1), trainer.n_prefix + batch.place], 1
        )
        full, _ = attention_masks(batch.block, trainer.n_prefix, trainer.n_visual)
        _, hidden = trainer._decode(embeds, full, None, position, stop=None)
        block = 1
        words = batch.ids[0][batch.block[0] == block]
        visual = torch.full((trainer.n_visual,), VIDEO_TOKEN_ID)
        alone = trainer.model(
            input_ids=torch.cat([trainer.prefix, visual, words])[None], pixel_values_videos=batch.pixels[:1]
        ).logits[0, -1]
        packed = trainer.model.lm_head(hidden[0, trainer.n_prefix + batch.last[0, block]])
    torch.testing.assert_close(packed, alone, atol=2e-5, rtol=1e-4)


def test_the_frozen_part_gets_no_gradient(trainer: Trainer) -> None:
    batch = trainer.batches.draw(np.random.default_rng(1), open_share=0.5, with_text=True)
    trainer.model.zero_grad(set_to_none=True)
    loss, _ = trainer.answer(batch, blind=True)
    loss.backward()
    layers = trainer.model.model.language_model.layers
    assert all(p.grad is None for p in [*layers[0].parameters(), *layers[1].parameters()])
    assert all(p.grad is None for p in trainer.model.model.vision_tower.parameters())
    assert all(p.grad is not None for p in layers[2].parameters())


def test_batches_are_fixed_by_their_seed(trainer: Trainer) -> None:
    first, second = (trainer.batches.draw(np.random.default_rng([1, 5]), 0.5, with_text=True) for _ in range(2))
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.ids, second.ids)
    assert torch.equal(first.answer, second.answer)


def test_the_pool_holds_the_sampled_frames(trainer: Trainer) -> None:
    assert trainer.batches.available() == 3
    assert np.array_equal(trainer.batches.pool[1], sampled_frames(draw_scene(1000, 1), 112))


def test_reading_without_prefix_gradients_gives_the_same_text(trainer: Trainer) -> None:
    batch = trainer.batches.draw(np.random.default_rng(2), open_share=0.5, with_text=True)
    with torch.no_grad():
        prefix = trainer._prefix_embeds(batch)
        text, _ = trainer._read(prefix, batch)
        embeds = torch.cat([prefix, trainer.model.get_input_embeddings()(batch.ids)], 1)
        full, blind = attention_masks(batch.block, trainer.n_prefix, trainer.n_visual)
        _, hidden = trainer._decode(embeds, full, blind, trainer._positions(batch), stop=None)
    torch.testing.assert_close(text, hidden[:, trainer.n_prefix :], atol=2e-5, rtol=1e-4)


def test_the_cosine_by_hand() -> None:
    # warm-up: step 29 of 60 is half of the peak, and the cosine has hardly begun
    assert cosine(29, 0, 10_000, 1.0) == pytest.approx(30 / 60, abs=1e-4)
    # half way the cosine is 0.5: 0.02 + 0.98 * 0.5
    assert cosine(1500, 1000, 2000, 2.0) == pytest.approx(2 * 0.51)
    assert cosine(2000, 1000, 2000, 2.0) == pytest.approx(2 * 0.02)
