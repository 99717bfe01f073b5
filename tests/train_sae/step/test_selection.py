"""Which latents are selected."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from train_sae.step.selection import ActiveLatents, select_batch_topk, select_topk, tokens_of, transpose


def dense(selection: ActiveLatents, d_sae: int) -> Tensor:
    """The selection as a matrix; positions that are not selected are NaN."""
    n_tokens = selection.offsets.numel() - 1
    out = torch.full((n_tokens, d_sae), torch.nan, dtype=selection.values.dtype)
    out[tokens_of(selection), selection.latents] = selection.values
    return out


@st.composite
def pre_activations(draw: st.DrawFn) -> Tensor:
    """Small integers, so that ties and rows without a positive entry are frequent."""
    n_tokens, d_sae = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    low = draw(st.sampled_from([-3, -1]))
    cells = draw(st.lists(st.integers(low, 3), min_size=n_tokens * d_sae, max_size=n_tokens * d_sae))
    return torch.tensor(cells, dtype=torch.float32).view(n_tokens, d_sae)


@settings(max_examples=60, deadline=None)
@given(pre=pre_activations(), data=st.data())
def test_batch_topk_is_the_head_of_a_stable_sort_and_exactly_k_times_batch(pre: Tensor, data: st.DataObject) -> None:
    assert_batch_topk(pre, data.draw(st.integers(1, pre.shape[1])))


def assert_batch_topk(pre: Tensor, k: int) -> None:
    selection = select_batch_topk(pre, k)
    wanted = min(k * len(pre), int((pre > 0).sum()))
    order = pre.flatten().sort(descending=True, stable=True).indices[:wanted]
    expected = torch.full_like(pre, torch.nan).flatten().scatter(0, order, pre.flatten()[order]).view_as(pre)
    assert selection.values.numel() == wanted
    torch.testing.assert_close(dense(selection, pre.shape[1]), expected, equal_nan=True, rtol=0, atol=0)


def test_batch_topk_takes_k_times_batch_over_the_batch_and_not_k() -> None:
    # 2 tokens, k = 2: the four largest of the eight entries, three of them at the first token.
    pre = torch.tensor([[5.0, 1.0, 4.0, 3.0], [6.0, 2.0, -7.0, 0.0]])
    selection = select_batch_topk(pre, 2)
    assert selection.offsets.tolist() == [0, 3, 4]
    assert selection.latents.tolist() == [0, 2, 3, 0]
    assert selection.values.tolist() == [5, 4, 3, 6]


def test_batch_topk_of_nothing_positive_is_empty() -> None:
    selection = select_batch_topk(torch.tensor([[-1.0, 0.0], [-2.0, -3.0]]), 1)
    assert selection.offsets.tolist() == [0, 0, 0]
    assert selection.values.numel() == 0


@settings(max_examples=60, deadline=None)
@given(pre=pre_activations(), data=st.data())
def test_topk_is_the_positive_head_of_a_stable_sort_of_each_token(pre: Tensor, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, pre.shape[1]))
    assert_topk(pre, k)


def assert_topk(pre: Tensor, k: int) -> None:
    order = pre.sort(dim=1, descending=True, stable=True).indices[:, :k]
    expected = torch.full_like(pre, torch.nan).scatter(1, order, pre.gather(1, order))
    expected[expected <= 0] = torch.nan
    torch.testing.assert_close(dense(select_topk(pre, k), pre.shape[1]), expected, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("n_tokens", "d_sae", "k"), [(300, 4096, 16), (70, 999, 8), (3, 64, 1), (5, 100, 90), (1, 1, 1)]
)
def test_selections_through_chunks_equal_a_sort(n_tokens: int, d_sae: int, k: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    pre = torch.randn(n_tokens, d_sae, generator=generator).to(dtype)
    pre[0] = -1.0  # a token without positive entries
    pre[-1, 1:] = pre[-1, 0].clone()  # and one where all are equal
    for some in (pre, pre.abs()):
        assert_topk(some, k)
        assert_batch_topk(some, k)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads: int) -> None:
    pre = torch.randn(900, 4096, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = select_batch_topk(pre, 5)
    finally:
        torch.set_num_threads(before)
    order = pre.flatten().sort(descending=True, stable=True).indices[: 5 * 900].sort().values
    assert torch.equal(tokens_of(found) * 4096 + found.latents, order)


@settings(max_examples=60, deadline=None)
@given(pre=pre_activations())
def test_transposing_orders_entries_by_latent_and_loses_none(pre: Tensor) -> None:
    d_sae = pre.shape[1]
    selection = select_batch_topk(pre, 1)
    index = transpose(selection, d_sae)
    latents = torch.arange(d_sae).repeat_interleave(index.offsets.diff())
    back = torch.full_like(pre, torch.nan)
    back[index.rows, latents] = selection.values[index.order]
    torch.testing.assert_close(back, dense(selection, d_sae), equal_nan=True, rtol=0, atol=0)


def test_offsets_count_tokens_without_an_entry() -> None:
    selection = select_batch_topk(torch.tensor([[-1.0, -1.0], [3.0, 2.0], [-1.0, 1.0]]), 1)
    assert selection.offsets.tolist() == [0, 0, 2, 3]
    assert tokens_of(selection).tolist() == [1, 1, 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_selection_keeps_the_precision_of_the_pre_activations(dtype: torch.dtype) -> None:
    pre = torch.ones(2, 3, dtype=dtype)
    assert select_batch_topk(pre, 1).values.dtype == dtype
    assert select_topk(pre, 1).values.dtype == dtype
