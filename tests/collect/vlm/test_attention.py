import pytest
import torch

from collect.vlm.attention import attention_mask, deepstack_kwargs, frame_blocks, visible_in_blocks

LOWEST = torch.finfo(torch.float32).min


def tensor(rows: str) -> torch.Tensor:
    """Rows of 0 and 1, separated by spaces."""
    return torch.tensor([[digit == "1" for digit in row] for row in rows.split()])


def test_blocks_are_the_runs_of_visual_tokens() -> None:
    assert frame_blocks(tensor("0110111")[0]).tolist() == [-1, 0, 0, -1, 1, 1, 1]
    assert frame_blocks(tensor("100")[0]).tolist() == [0, -1, -1]


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (None, "1000 1110 1110 1111"),  # as far as the diagonal, and tokens 1 and 2 both ways
        ("1000 0100 0010 0001", "1000 0110 0110 0001"),
    ],
)
def test_tokens_of_a_block_see_each_other_besides(allowed: str | None, expected: str) -> None:
    blocks = torch.tensor([-1, 0, 0, -1])
    assert torch.equal(visible_in_blocks(None if allowed is None else tensor(allowed), blocks), tensor(expected))


def test_one_mask_for_all_rows() -> None:
    positions = torch.arange(3).expand(2, 3)
    mask = attention_mask(tensor("100 110 101"), positions, torch.float32, None)
    assert isinstance(mask, torch.Tensor)
    assert mask.shape == (2, 1, 3, 3)
    assert mask[1, 0].tolist() == [[0, LOWEST, LOWEST], [0, 0, LOWEST], [0, LOWEST, 0]]


def test_layers_with_a_window_see_the_last_positions_only() -> None:
    # Positions 0, 1, 2 and 1 again, as where two questions follow one prefix: a window of 2 reaches from 1 back to 0.
    positions = torch.tensor([[0, 1, 2, 1]])
    masks = attention_mask(tensor("1000 1100 1110 1001"), positions, torch.float32, 2)
    assert isinstance(masks, dict)
    assert torch.equal(masks["full_attention"][0, 0] == 0, tensor("1000 1100 1110 1001"))
    assert torch.equal(masks["sliding_attention"][0, 0] == 0, tensor("1000 1100 0110 1001"))


def test_deepstack_features_of_earlier_layers_are_in_the_residual_already() -> None:
    deepstack = torch.arange(1.0, 9.0).reshape(2, 1, 2, 2)  # of layers 0 and 1, one row, two visual tokens
    kwargs = deepstack_kwargs(deepstack, torch.tensor([1, 3]), n_tokens=5, layer=1)
    assert kwargs["visual_pos_masks"].tolist() == [[False, True, False, True, False]]
    assert [x.tolist() for x in kwargs["deepstack_visual_embeds"]] == [[[0, 0], [0, 0]], [[5, 6], [7, 8]]]
