"""The step of the TopK family on a GPU: the sparse step's mathematics in kernels.

In a bfloat16 step the residuals, the gathered directions and the matrices' gradients are bfloat16 too, as they are
under autocast; weights, moments and all sums are float32. Nothing here waits for the device, except for a count at the
first step (`dead`), and little depends on numbers from the host, so whole steps are recorded and played (`recording`).
What the CUDA step keeps between steps follows from the state, so it is not in checkpoints.

Data-parallel processes take the same step, unrecorded; their float32 gradients are averaged before they are clipped.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from train_sae.kernels.adam import AdamMoments, Rates, adam_rows, adam_vector
from train_sae.kernels.auxk import dead_gradients, padded
from train_sae.kernels.backward import Batch, Gradients, gradients, index_by_latent, weighted_sum
from train_sae.kernels.centre import centre
from train_sae.kernels.dead import DeadBound
from train_sae.kernels.decode import decode_residuals, prefix_bounds, prefix_rows
from train_sae.kernels.recording import Recordings
from train_sae.kernels.select import Entries, select_batch_topk, select_topk
from train_sae.step.selection import tokens_of
from train_sae.step.settings import StepSettings, StepStats
from train_sae.step.state import TrainState
from train_sae.step.update import Outcome, record, smallest_positive


def kernel_step(state: TrainState, x: Float[Tensor, "token d_in"], settings: StepSettings, lr: float) -> StepStats:
    """Take the same step as `reference_step`, within the precision of the encoder's product.

    Args:
        state: what the step changes; its weights are float32.
        x: normalised activations, float32.
        settings: what the step does; one of the TopK family, by processes that divide the tokens, in float32 or
            bfloat16.
        lr: learning rate of this step.
    """
    with torch.no_grad(), torch.cuda.device_of(x):  # Triton launches on the current device
        memory, step = _memory_of(state), state.step
        state.set_adam(lr, settings.options)
        memory.prepare(state, settings, lr)
        n_most = memory.dead_bound.at(state, settings.dead_tokens, len(x) * settings.group.n_data)
        n_places = padded(n_most, state.weights.dec.shape[0])

        def take(batch: Tensor) -> StepStats:
            return _step(state, batch, settings, memory, n_places)

        # Prefixes that are drawn at each step are numbers on the host.
        is_same_each_time = settings.group.n_processes == 1 and not settings.options.matryoshka_samples
        can_record = x.is_cuda and is_same_each_time
        stats = memory.recordings.take(n_places, x, take) if can_record else take(x)
        state.step = step + 1
        memory.is_new(state)
        return stats


def _step(
    state: TrainState, x: Float[Tensor, "token d_in"], settings: StepSettings, memory: "_Memory", n_places: int
) -> StepStats:
    """The step's operations on the device."""
    w, n_tokens, d_sae, group = state.weights, len(x), state.weights.dec.shape[0], settings.group
    enc, dec = memory.enc(state), memory.dec(state)
    dead = state.dead(settings.dead_tokens)
    inputs, center, variance = centre(x, w.b_dec, settings.precision)
    pre = F.linear(inputs, enc, w.b_enc.to(settings.precision))
    entries = _select(pre, state, settings)
    widths = settings.widths(d_sae, state.step)
    residuals = x.new_empty(len(widths) * n_tokens, x.shape[1], dtype=settings.precision)
    bounds = prefix_bounds(entries, widths, n_tokens)
    mse, dots = decode_residuals(bounds, entries.latents, entries.values, dec, w.b_dec, x, residuals)
    scale, trains_dec = 2 / n_tokens, w.dec.requires_grad
    aux, extra = mse.new_zeros(()), None
    if n_places:
        of_errors = Batch(inputs, residuals[-n_tokens:], scale * settings.options.aux_loss_coefficient)
        aux, extra = dead_gradients(pre, dead, n_places, settings.aux_k, of_errors, dec, trains_dec=trains_dec)
    del pre  # its memory is reused for the gradients
    rows = prefix_rows(entries, widths, n_tokens)
    index = index_by_latent(entries.latents, rows, entries.values, dots, d_sae, n_tokens)
    dtype = settings.precision if group.n_processes == 1 else torch.float32
    grads = gradients(index, Batch(inputs, residuals, scale), dec, extra, dtype=dtype, trains_dec=trains_dec)
    grad_b_dec = residuals[:n_tokens].sum(0, dtype=torch.float32).mul_(scale) - weighted_sum(grads.b_enc, enc)
    _update(state, settings, memory, grads, grad_b_dec)
    # Every entry is positive, so a latent that has one has fired.
    outcome = Outcome(
        mse, aux, torch.zeros_like(mse), entries.offsets[-1], index.offsets.diff() > 0,
        smallest_positive(entries.values), dead,
    )  # fmt: skip
    if group.n_processes > 1:  # about the mean of all tokens
        shared = center.clone()
        group.average_([shared])
        variance = variance + (center - shared).square().sum()
    return record(state, settings, outcome, n_tokens, variance)


def _select(pre: Float[Tensor, "token d_sae"], state: TrainState, settings: StepSettings) -> Entries:
    """The entries of the batch; a process may have only a part of its tokens."""
    if settings.arch == "topk":
        return select_topk(pre, min(settings.k, pre.shape[1]))
    if settings.group.n_processes == 1:
        return select_batch_topk(pre, settings.k)
    chosen = settings.group.select_batch_topk(pre, settings.k, state.threshold.to(pre))
    return Entries(chosen.offsets, tokens_of(chosen).int(), chosen.latents.int(), chosen.values.float())


def _update(
    state: TrainState, settings: StepSettings, memory: "_Memory", grads: Gradients, grad_b_dec: Float[Tensor, " d_in"]
) -> None:
    """Average the gradients over processes, clip them together, and take Adam's step."""
    w, group, limit = state.weights, settings.group, settings.options.clip_grad_norm
    matrices = [grads.enc, *([] if grads.dec is None else [grads.dec])]
    group.average_([*matrices, grads.b_enc, grad_b_dec])
    if limit is not None:
        squares = grads.squares.sum() if group.n_processes == 1 else _squares([*matrices, grads.b_enc])
        norm = (squares + torch.dot(grad_b_dec, grad_b_dec)).sqrt()
        memory.numbers[2:].copy_(((norm + 1e-6) / limit).clamp(min=1.0).unsqueeze(0))
    options, eps = settings.options, state.optimizer.param_groups[0]["eps"]
    rates = Rates(1 - options.adam_beta1, 1 - options.adam_beta2, eps)
    adam_rows(_moments(state, w.enc), grads.enc, memory.numbers, rates, memory.shadows.get("enc"))
    if grads.dec is not None:
        adam_rows(_moments(state, w.dec), grads.dec, memory.numbers, rates, memory.shadows.get("dec"), is_unit=True)
    adam_vector(_moments(state, w.b_enc), grads.b_enc, memory.numbers, rates)
    adam_vector(_moments(state, w.b_dec), grad_b_dec, memory.numbers, rates)


def _squares(tensors: list[Tensor]) -> Float[Tensor, ""]:
    # Gradients may be bfloat16, and a product of two such vectors is rounded to it.
    return torch.stack([torch.linalg.vector_norm(each, dtype=torch.float32).square() for each in tensors]).sum()


def _moments(state: TrainState, weight: Float[Tensor, "*shape"]) -> AdamMoments:
    """The moments of a weight, which is about to take a step, as torch's Adam keeps them."""
    kept: dict[str, Any] = state.optimizer.state[weight]
    if not kept:
        kept["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
        kept["exp_avg"], kept["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
    kept["step"] += 1
    return AdamMoments(weight, kept["exp_avg"], kept["exp_avg_sq"])


class _Memory:
    """What is kept between the steps of a training."""

    def __init__(self, device: torch.device) -> None:
        self.dead_bound = DeadBound()
        self.recordings = Recordings()
        self.numbers = torch.ones(3, device=device)
        """Adam's numbers of the step, as `adam_rows` reads them."""
        self.shadows: dict[str, Tensor] = {}
        """Copies of the matrices in the precision of the step, if it differs from theirs."""
        self._settings: StepSettings | None = None
        self._step: int | None = None

    def __deepcopy__(self, _: dict[int, Any]) -> "_Memory":
        return _Memory(self.numbers.device)

    def prepare(self, state: TrainState, settings: StepSettings, lr: float) -> None:
        """Prepare for a step."""
        if settings != self._settings:
            self.recordings.forget()
            self.shadows.clear()
            self._settings, self._step = settings, None
        if self._step != state.step:  # other steps were taken, or none
            for name in ("enc", "dec"):
                weight = getattr(state.weights, name).detach()
                if weight.dtype != settings.precision:
                    self.shadows.setdefault(name, torch.empty_like(weight, dtype=settings.precision)).copy_(weight)
        t, options = state.step + 1, settings.options
        # Passed at the launch, not in memory that could be overwritten before the device has read it.
        self.numbers[:1].fill_(lr / (1 - options.adam_beta1**t))
        self.numbers[1:2].fill_(math.sqrt(1 - options.adam_beta2**t))
        if options.clip_grad_norm is None:
            self.numbers[2:].fill_(1.0)

    def is_new(self, state: TrainState) -> None:
        """Note that the copies were written along with the weights; after any other step they are copied again."""
        self._step = state.step

    def enc(self, state: TrainState) -> Tensor:
        """Encoder directions in the precision of the step."""
        return self.shadows.get("enc", state.weights.enc.detach())

    def dec(self, state: TrainState) -> Tensor:
        """Decoder directions in the precision of the step."""
        return self.shadows.get("dec", state.weights.dec.detach())


def _memory_of(state: TrainState) -> _Memory:
    if not isinstance(state.memory, _Memory):
        state.memory = _Memory(state.weights.enc.device)
    return state.memory
