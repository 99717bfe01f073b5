from pathlib import Path

import numpy as np
import pytest
import torch

from collect.errors import UserError
from demo.vlm.architecture import SIZES, build_model, build_processor, save_untrained
from demo.world.scene import SAMPLES


def test_demo_size_is_what_the_demo_promises() -> None:
    size = SIZES["demo"]
    assert size.grid**2 >= 64
    assert size.layers >= 6
    assert SAMPLES >= 8
    assert sum(p.numel() for p in build_model(size, 0).parameters()) * 4 < 16e6


def test_a_seed_fixes_every_weight() -> None:
    first, same, other = (build_model(SIZES["tiny"], seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_processor_makes_one_id_a_word_and_a_visual_token() -> None:
    size = SIZES["tiny"]
    processor = build_processor(size)
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "How many toys"}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    frames = np.zeros((2, 24, 32, 3), dtype=np.uint8)
    ids = processor(text=text, videos=[frames], return_tensors="pt")["input_ids"][0]
    # <bos> user, 2 frames of 4 x 4 visual tokens, How many toys, assistant
    assert len(ids) == 2 + 2 * 16 + 3 + 1
    assert int((ids == 4).sum()) == 32


def test_an_unknown_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose one of"):
        save_untrained(tmp_path, size="huge")  # pyright: ignore[reportArgumentType]
