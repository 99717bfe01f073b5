from pathlib import Path

import numpy as np
import pytest

from demo.vlm.architecture import SIZES, build_processor
from demo.vlm.token_labels import ASKED, HAPPENED, SEEN, token_labels
from demo.vlm.training_data import Pool, build_pool, encode_block, pack_texts, sampled_frames
from demo.world.script import draw_scene


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("pool")
    build_pool(folder, seed=1000, n_videos=5, image_px=56, grid=8, workers=1)
    return Pool(folder, 1000)


def test_the_pool_holds_the_sampled_frames_and_labels(pool: Pool) -> None:
    assert len(pool) == 5
    scene = draw_scene(1000, 3)
    assert np.array_equal(pool.frames[3], sampled_frames(scene, 56))
    seen, happened = pool.labels(np.array([3]))
    expected = token_labels(scene, 8)
    assert np.array_equal(seen[0], expected[0].reshape(512, len(SEEN)))
    assert np.array_equal(happened[0], expected[1].reshape(512, len(HAPPENED)))


def test_a_pool_that_was_not_finished_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("demo.vlm.training_data.np.save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_pool(tmp_path, seed=1, n_videos=2, image_px=28, grid=2, workers=1)
    assert not (tmp_path / "frames.npy").exists()
    build_pool(tmp_path, seed=1, n_videos=2, image_px=28, grid=2, workers=1)
    assert len(Pool(tmp_path, 1)) == 2


def test_questions_name_what_they_ask_about(pool: Pool) -> None:
    for video in range(len(pool)):
        scene = draw_scene(1000, video)
        for question in pool.questions(video):
            if question.item.kind == "lamp":
                assert ASKED[question.asked] == "lamp turns on"
                assert question.relevant.sum() == scene.counts["lamp"].value


def test_packed_texts_are_the_encoded_blocks(pool: Pool) -> None:
    tokenizer = build_processor(SIZES["demo"]).tokenizer
    texts = pack_texts(pool, np.array([0, 2]), tokenizer, np.random.default_rng(3), blocks=3, length=90, words=0.0)
    for b in range(2):
        for j in range(3):
            own = texts.block[b] == j
            if own.any():
                assert texts.place[b, own].tolist() == list(range(own.sum()))
                assert texts.last[b, j] == np.nonzero(own)[0].max()
                right = texts.ids[b, texts.options[b, j, texts.correct[b, j]] - 1]
                letter = tokenizer.convert_ids_to_tokens(int(texts.answer[b, j]))
                assert tokenizer.convert_ids_to_tokens(int(right)) == f"{letter}."


def test_an_open_question_is_answered_with_the_word(pool: Pool) -> None:
    tokenizer = build_processor(SIZES["demo"]).tokenizer
    item = pool.questions(0)[0].item
    block = encode_block(tokenizer, item, with_options=False, rng=np.random.default_rng(0))
    assert tokenizer.convert_ids_to_tokens(block.answer) == item.answer
    assert block.options == []
