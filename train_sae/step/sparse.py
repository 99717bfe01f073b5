"""The sparse step of the TopK family: the reference's step with one dense product and its gradients written by hand.

With G = ∂loss/∂x_hat, a selected latent's pre-activation has the gradient G_t · W_dec[i] where it is positive. The
decoder bias needs no product with the inputs, since it enters the encoder only through x − b_dec:
∂loss/∂b_dec = Σ_t G_t − W_enc ∂loss/∂b_enc.

Matryoshka treats (token, prefix) as a row of its own: a latent's activation belongs to the row of the first prefix that
holds it, x_hat of a prefix is the sum of the token's rows up to it, and so G of a row is the sum of the residuals of
that prefix and all longer ones. No product of full size is added.
"""

import itertools
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from train_sae.step.architectures import Weights
from train_sae.step.linear import linear
from train_sae.step.selection import ActiveLatents, Transposed, offsets_of, tokens_of, transpose
from train_sae.step.settings import StepSettings, StepStats
from train_sae.step.state import TrainState
from train_sae.step.update import Outcome, mean_square, smallest_positive, update

_N_BLOCKS = 8
_ENTRIES_PER_BLOCK = 16384
_N_PARTS = 16


@torch.no_grad()
def sparse_step(state: TrainState, x: Float[Tensor, "token d_in"], settings: StepSettings, lr: float) -> StepStats:
    """Take the same step as `reference_step`, in about the time of the encoder's product.

    Args:
        state: what the step changes; gradients are left in the weights' `grad`.
        x: normalised activations.
        settings: what the step does; one of the TopK family.
        lr: learning rate of this step.
    """
    w, n_tokens, group = state.weights, x.shape[0], settings.group
    dead = state.dead(settings.dead_tokens)
    centred = x - w.b_dec
    precision = settings.precision
    pre = linear(centred.to(precision), w.enc.to(precision), w.b_enc.to(precision))
    selection = (
        group.select_topk(pre, settings.k)
        if settings.arch == "topk"
        else group.select_batch_topk(pre, settings.k, state.threshold.to(pre))
    )
    selection = ActiveLatents(selection.offsets, selection.latents, selection.values.to(x))
    n_latents = w.dec.shape[0]
    widths = settings.widths(n_latents * group.n_shards, state.step)
    rows = _by_prefix(selection, widths, n_tokens, group.first_latent(n_latents))
    # x_hat − x for each prefix: the decoder bias is in both and cancels. Then its sums from the longest prefix down.
    residuals = group.sum_shards(_decode(rows, w.dec)).view(n_tokens, len(widths), -1)
    _sum_over_prefixes(residuals, centred)
    error = residuals[:, -1]
    mse = mean_square(error)
    scale = 2 / n_tokens
    grads = _sparse_gradients(rows, w, centred, residuals.flatten(0, 1), scale)
    fired = grads.activity > 0
    grad_b_dec = residuals[:, 0].sum(0).mul_(scale)

    aux = error.new_zeros(())
    dead_latents = dead.nonzero().squeeze(1)
    if group.is_anywhere(dead_latents.numel() > 0):
        # Ranked among the dead latents only, then renumbered.
        picked = group.select_topk(pre.index_select(1, dead_latents), settings.aux_k)
        extra = ActiveLatents(picked.offsets, dead_latents.index_select(0, picked.latents), picked.values.to(x))
        aux_error = group.sum_shards(_decode(extra, w.dec)).add_(error)
        aux = mean_square(aux_error)
        extra_grads = _sparse_gradients(extra, w, centred, aux_error, scale * settings.options.aux_loss_coefficient)
        for mine, other in zip(grads, extra_grads, strict=True):
            mine += other

    w.enc.grad, w.b_enc.grad = grads.enc, grads.b_enc
    w.dec.grad = grads.dec if w.dec.requires_grad else None
    w.b_dec.grad = grad_b_dec - group.sum_shards(_weighted_sum(grads.b_enc, w.enc))
    n_active, smallest = (selection.values > 0).sum(), smallest_positive(selection.values)
    outcome = Outcome(mse, aux, torch.zeros_like(mse), n_active, fired, smallest, dead)
    return update(state, x, settings, lr, outcome, grads.along)


class _LatentGradients(NamedTuple):
    enc: Float[Tensor, "d_sae d_in"]
    dec: Float[Tensor, "d_sae d_in"]
    b_enc: Float[Tensor, " d_sae"]
    along: Float[Tensor, " d_sae"]
    """Dot products of the decoder's gradient with the decoder directions."""
    activity: Float[Tensor, " d_sae"]
    """Sum of each latent's activations."""


def _by_prefix(selection: ActiveLatents, widths: tuple[int, ...], n_tokens: int, first_latent: int) -> ActiveLatents:
    """Give each (token, prefix) a row: the latents that the prefix adds to the one before it.

    A token's latents ascend in the selection of a batch, so the entries are already in the order of these rows.
    """
    if len(widths) == 1:
        return selection
    bounds = torch.tensor(widths[:-1], device=selection.latents.device)
    prefix = torch.bucketize(selection.latents + first_latent, bounds, right=True)
    rows = tokens_of(selection).mul_(len(widths)).add_(prefix)
    return ActiveLatents(offsets_of(rows, n_tokens * len(widths)), selection.latents, selection.values)


def _sum_over_prefixes(residuals: Float[Tensor, "token prefix d_in"], target: Float[Tensor, "token d_in"]) -> None:
    """Turn what each prefix adds into its residual, and that into the sum of its own and all longer ones', in place.

    Works in blocks of tokens, which stay in the cache meanwhile.
    """
    n_prefixes = residuals.shape[1]
    n_blocks = _N_BLOCKS if n_prefixes > 1 and residuals.device.type == "cpu" else 1
    for block, wanted in zip(residuals.chunk(n_blocks), target.chunk(n_blocks), strict=True):
        rows = block.unbind(1)
        rows[0].sub_(wanted)
        for shorter, longer in itertools.pairwise(rows):
            longer += shorter
        for longer, shorter in itertools.pairwise(rows[::-1]):
            shorter += longer


def _sparse_gradients(
    selection: ActiveLatents,
    weights: Weights,
    centred: Float[Tensor, "token d_in"],
    residuals: Float[Tensor, "row d_in"],
    scale: float,
) -> _LatentGradients:
    """Gradients of a loss whose gradient by the decoded rows is `scale * residuals`.

    Every token has the same number of rows, one after another.
    """
    d_sae, n_tokens = weights.b_enc.shape[0], centred.shape[0]
    index = transpose(selection, d_sae)
    values = selection.values.index_select(0, index.order)
    grad_pre = _dot_selected(index, residuals, weights.dec).mul_(values > 0).mul_(scale)
    # The decoder's gradient along its direction follows from products that are known already.
    per_entry = torch.stack([grad_pre, grad_pre * values, values], dim=1)
    sums = torch.segment_reduce(per_entry, "sum", offsets=index.offsets, axis=0, unsafe=True)
    b_enc, along, activity = sums.T.contiguous()
    rows_per_token = residuals.shape[0] // n_tokens
    tokens = index.rows if rows_per_token == 1 else torch.div(index.rows, rows_per_token, rounding_mode="floor")
    return _LatentGradients(
        enc=_sum_per_latent(tokens, index.offsets, grad_pre, centred),
        dec=_sum_per_latent(index.rows, index.offsets, values * scale, residuals),
        b_enc=b_enc,
        along=along,
        activity=activity,
    )


def _decode(selection: ActiveLatents, dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "row d_in"]:
    """Sum the selected decoder directions of each row, weighted by the latent activations."""
    return F.embedding_bag(
        selection.latents,
        dec,
        selection.offsets,
        mode="sum",
        per_sample_weights=selection.values,
        include_last_offset=True,
    )


def _sum_per_latent(
    rows: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " latents_and_one"],
    coefficients: Float[Tensor, " nnz"],
    table: Float[Tensor, "row width"],
) -> Float[Tensor, "d_sae width"]:
    """Sum the rows of a table at which each latent is selected, weighted."""
    return F.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=coefficients, include_last_offset=True)


def _weighted_sum(coefficients: Float[Tensor, " d_sae"], rows: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, " d_in"]:
    """Take coefficients · rows, in parts: torch's product of a vector with a matrix uses one thread."""
    every = torch.arange(len(rows), device=rows.device)
    begins = every[:: -(-len(rows) // _N_PARTS)]
    return F.embedding_bag(every, rows, begins, mode="sum", per_sample_weights=coefficients).sum(0)


def _dot_selected(
    index: Transposed, residuals: Float[Tensor, "row d_in"], dec: Float[Tensor, "d_sae d_in"]
) -> Float[Tensor, " nnz"]:
    """Take the dot products of each decoder direction with the rows at which it is selected, and no others."""
    products = residuals.new_empty(index.rows.shape[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")
        for latents, entries in _blocks(index.offsets):
            begun = index.offsets[latents.start : latents.stop + 1]
            pattern = torch.sparse_csr_tensor(
                begun - begun[0],
                index.rows[entries],
                torch.zeros_like(products[entries]),
                size=(latents.stop - latents.start, residuals.shape[0]),
                check_invariants=False,
            )
            found = torch.sparse.sampled_addmm(pattern, dec[latents], residuals.T, beta=0.0)
            products[entries] = found.values()
    return products


def _blocks(offsets: Int[Tensor, " latents_and_one"]) -> Iterator[tuple[slice, slice]]:
    """Blocks of latents and their entries: one on a GPU, where the numbers of entries are not known to the host.

    On the CPU, threads divide latents by number, and the first latents may have many more entries than the last; within
    a block the difference is smaller.
    """
    d_sae = offsets.shape[0] - 1
    if offsets.device.type != "cpu":
        yield slice(0, d_sae), slice(None)
        return
    ends = offsets.numpy()
    n_blocks = min(_N_BLOCKS, 1 + int(ends[-1]) // _ENTRIES_PER_BLOCK)
    length = -(-d_sae // n_blocks)
    for first in range(0, d_sae, length):
        last = min(d_sae, first + length)
        yield slice(first, last), slice(int(ends[first]), int(ends[last]))
