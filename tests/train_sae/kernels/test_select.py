"""The selections of the CUDA step: on a GPU where there is one, else in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from tests.train_sae.kernels.conftest import DEVICE
from train_sae.step.selection import ActiveLatents
from train_sae.step.selection import select_batch_topk as reference_batch_topk
from train_sae.step.selection import select_topk as reference_topk

SHAPES = [(5, 40, 3), (3, 16, 16), (1, 100, 1), (9, 33, 4)]


def pre_activations(n_tokens: int, d_sae: int, dtype: torch.dtype, kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(n_tokens)
    if kind == "ties":
        return torch.randint(-2, 3, (n_tokens, d_sae), generator=generator).to(dtype)
    pre = torch.randn(n_tokens, d_sae, generator=generator)
    if kind == "empty rows":
        pre[::2] = -1.0
    return (pre - 10 if kind == "nothing" else pre).to(dtype)


def assert_same(entries: object, expected: ActiveLatents, n_tokens: int) -> None:
    from train_sae.kernels.select import Entries

    assert isinstance(entries, Entries)
    found = {
        (int(t), int(i)): float(v)
        for t, i, v in zip(entries.tokens.cpu(), entries.latents.cpu(), entries.values.cpu(), strict=True)
        if v > 0
    }
    tokens = torch.arange(n_tokens).repeat_interleave(expected.offsets.diff())
    wanted = {
        (int(t), int(i)): float(v)
        for t, i, v in zip(tokens, expected.latents, expected.values.float(), strict=True)
        if v > 0
    }
    assert found == wanted
    n_entries = int(entries.offsets[-1])
    assert (entries.values[:n_entries] > 0).all(), "every entry is positive"
    assert (entries.latents[n_entries:] > int(entries.latents[:n_entries].max() if n_entries else -1)).all()
    assert (entries.tokens[n_entries:] == n_tokens).all()
    assert not entries.values[n_entries:].any()
    for token in range(n_tokens):
        inside = slice(int(entries.offsets[token]), int(entries.offsets[token + 1]))
        assert all(int(t) == token for t in entries.tokens[inside])
        assert (entries.latents[inside].diff() > 0).all(), "in the order of latents"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["random", "ties", "empty rows", "nothing"])
@pytest.mark.parametrize("shape", SHAPES)
def test_topk_is_the_one_of_the_cpu(shape: tuple[int, int, int], kind: str, dtype: torch.dtype) -> None:
    from train_sae.kernels.select import select_topk

    n_tokens, d_sae, k = shape
    pre = pre_activations(n_tokens, d_sae, dtype, kind)
    assert_same(select_topk(pre.to(DEVICE), k), reference_topk(pre, k), n_tokens)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["random", "ties", "empty rows", "nothing"])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_topk_is_the_one_of_the_cpu(shape: tuple[int, int, int], kind: str, dtype: torch.dtype) -> None:
    from train_sae.kernels.select import select_batch_topk

    n_tokens, d_sae, k = shape
    pre = pre_activations(n_tokens, d_sae, dtype, kind)
    entries = select_batch_topk(pre.to(DEVICE), k)
    assert entries.latents.numel() == n_tokens * k
    assert_same(entries, reference_batch_topk(pre, k), n_tokens)


@pytest.mark.parametrize("kind", ["random", "ties", "empty rows", "nothing"])
def test_dense_topk_keeps_what_is_selected(kind: str) -> None:
    from train_sae.kernels.select import keep_topk

    pre = pre_activations(5, 40, torch.bfloat16, kind)
    chosen = reference_topk(pre, 3)
    expected = torch.zeros_like(pre)
    tokens = torch.arange(5).repeat_interleave(chosen.offsets.diff())
    expected[tokens, chosen.latents] = chosen.values
    assert torch.equal(keep_topk(pre.to(DEVICE), 3).cpu(), expected)


def test_rows_longer_than_a_block_are_walked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    from train_sae.kernels import bounds, chunks, select

    monkeypatch.setattr(chunks, "_MAX_BLOCK", 16)
    monkeypatch.setattr(bounds, "_RESIDENT", 16)
    pre = pre_activations(4, 50, torch.bfloat16, "ties")
    assert_same(select.select_topk(pre.to(DEVICE), 7), reference_topk(pre, 7), 4)
    assert_same(select.select_batch_topk(pre.to(DEVICE), 7), reference_batch_topk(pre, 7), 4)
