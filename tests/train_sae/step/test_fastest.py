"""The sparse step against the reference, and what both must do."""

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from train_sae.config import Architecture
from train_sae.options import SaeOptions
from train_sae.processes.group import SOLO, Group
from train_sae.step import fastest as step_module
from train_sae.step.architectures import Weights, trained_names
from train_sae.step.fastest import StepSettings, StepStats, reference_step, sparse_step, take_step, takes_kernels
from train_sae.step.state import TrainState

STEPS = {"reference": reference_step, "sparse": sparse_step}
ARCHITECTURES: tuple[Architecture, ...] = ("topk", "batchtopk", "matryoshka_batchtopk", "frozen_decoder")


def make_settings(
    arch: Architecture, k: int, aux_k: int = 2, dead_tokens: int = 1000, options: SaeOptions | None = None
) -> StepSettings:
    options = options or SaeOptions()
    return StepSettings(arch=arch, k=k, dead_tokens=dead_tokens, aux_k=aux_k, precision=torch.float64, options=options)


def make_state(
    d_in: int,
    d_sae: int,
    seed: int = 0,
    numbers: Literal["real", "whole"] = "real",
    arch: Architecture = "topk",
    averaged: bool = False,
) -> TrainState:
    """Random weights in float64; whole ones make every pre-activation exact, so that ties are ties for both steps."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        if numbers == "whole":
            return torch.randint(-1, 2, shape, generator=generator).double()
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    dec = draw(d_sae, d_in)
    dec[:, 0] += 2.0 * (dec == 0).all(dim=1)  # a direction has a length
    weights = Weights(enc=draw(d_sae, d_in), dec=dec, b_enc=draw(d_sae), b_dec=draw(d_in))
    return TrainState(weights, trained_names(arch, weights), averaged)


def assert_same(first: TrainState, second: TrainState) -> None:
    for name, weight in first.trained.items():
        other = second.trained[name]
        assert weight.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(other.grad, weight.grad, msg=lambda text, name=name: f"gradient of {name}: {text}")
        torch.testing.assert_close(other, weight, msg=lambda text, name=name: f"update of {name}: {text}")
        if first.average is not None and second.average is not None:
            torch.testing.assert_close(second.average[name], first.average[name])
    for name, weight in first.weights.tensors().items():
        if name not in first.trained:
            assert torch.equal(second.weights.tensors()[name], weight)
    assert second.tokens_since_fired.tolist() == first.tokens_since_fired.tolist()
    torch.testing.assert_close(second.threshold, first.threshold)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_sparse_step_equals_the_reference_in_loss_gradients_and_updates(data: st.DataObject) -> None:
    d_in, d_sae, n_tokens = (data.draw(st.integers(1, top), label=name) for name, top in
                             (("d_in", 6), ("d_sae", 12), ("n_tokens", 7)))  # fmt: skip
    k = data.draw(st.integers(1, d_sae), label="k")
    aux_k = data.draw(st.integers(1, d_sae), label="aux_k")
    numbers: Literal["real", "whole"] = data.draw(st.sampled_from(["real", "whole"]), label="numbers")
    dead = data.draw(st.lists(st.booleans(), min_size=d_sae, max_size=d_sae), label="dead")
    shift = data.draw(st.sampled_from([0.0, -20.0]), label="shift of b_enc, which empties rows")
    widths = tuple(sorted(data.draw(st.sets(st.integers(1, d_sae)), label="widths")))
    options = SaeOptions(
        matryoshka_widths=widths,
        matryoshka_samples=data.draw(st.sampled_from([0, 0, 3]), label="sampled widths"),
        clip_grad_norm=data.draw(st.sampled_from([None, 0.1]), label="clip"),
        ema_decay=data.draw(st.sampled_from([None, 0.9]), label="average"),
        adam_beta2=data.draw(st.sampled_from([0.999, 0.9]), label="beta2"),
    )
    arch = data.draw(st.sampled_from(ARCHITECTURES), label="arch")
    config = make_settings(arch, k, aux_k, options=options)
    seed = data.draw(st.integers(0, 99), label="seed")
    reference = make_state(d_in, d_sae, seed, numbers, arch, options.ema_decay is not None)
    with torch.no_grad():
        reference.weights.b_enc.add_(shift)
    reference.tokens_since_fired.copy_(torch.tensor(dead) * config.dead_tokens)
    sparse = copy.deepcopy(reference)
    generator = torch.Generator().manual_seed(0)
    for step in range(2):  # the second step sees Adam's moments, counters
        if numbers == "whole" and step:
            break  # after an update nothing is whole any more
        x = torch.randint(-3, 4, (n_tokens, d_in), generator=generator).double()
        expected, found = reference_step(reference, x, config, 1e-2), sparse_step(sparse, x, config, 1e-2)
        for name in StepStats._fields:
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), msg=name, check_dtype=False)
        assert_same(reference, sparse)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_sparse_step_equals_the_reference_over_many_steps(arch: Architecture) -> None:
    config = make_settings(arch, k=3, aux_k=4, dead_tokens=150)
    reference = make_state(8, 32, arch=arch)
    sparse = copy.deepcopy(reference)
    generator = torch.Generator().manual_seed(1)
    deaths = 0
    for _ in range(20):
        x = torch.randn(40, 8, generator=generator, dtype=torch.float64)
        deaths += int(reference_step(reference, x, config, 3e-3).n_dead)
        sparse_step(sparse, x, config, 3e-3)
    assert_same(reference, sparse)
    assert deaths > 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_bfloat16_encoding_selects_the_same_and_keeps_the_weights_exact(arch: Architecture) -> None:
    config = replace(make_settings(arch, k=4), precision=torch.bfloat16)
    reference = make_state(16, 64)
    sparse = copy.deepcopy(reference)
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, found = reference_step(reference, x, config, 1e-3), sparse_step(sparse, x, config, 1e-3)
    torch.testing.assert_close(found.mse, expected.mse)
    assert sparse.weights.enc.dtype == torch.float64
    assert sparse.tokens_since_fired.tolist() == reference.tokens_since_fired.tolist()
    # The reference's gradient passes through bfloat16, with 8 bits of mantissa; the sparse step's does not.
    ours, theirs = sparse.weights.enc.grad, reference.weights.enc.grad
    assert ours is not None
    assert theirs is not None
    assert float((ours - theirs).norm() / theirs.norm()) < 0.01


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", STEPS)
def test_auxk_moves_the_encoder_of_dead_latents_and_without_it_nothing_does(name: str, arch: Architecture) -> None:
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def encoder_movement(dead_tokens: int) -> Tensor:
        state = make_state(8, 16)
        with torch.no_grad():
            state.weights.b_enc[:8] = 50.0  # the first eight win everywhere
            state.weights.b_enc[8:] = 0.0
        before = state.weights.enc.detach().clone()
        state.tokens_since_fired[8:] = 500
        STEPS[name](state, x, make_settings(arch, k=1, aux_k=4, dead_tokens=dead_tokens), 1e-3)
        return (state.weights.enc.detach() - before).abs().amax(dim=1)[8:]

    assert (encoder_movement(dead_tokens=500) > 0).all()
    assert (encoder_movement(dead_tokens=501) == 0).all()


@pytest.mark.parametrize("name", STEPS)
def test_shifting_the_input_and_the_decoder_bias_together_changes_no_gradient(name: str) -> None:
    # An AuxK target that subtracts b_dec twice would break this.
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    states = [make_state(6, 20), make_state(6, 20)]
    with torch.no_grad():
        states[1].weights.b_dec.add_(7.0)
    for state, shift in zip(states, (0.0, 7.0), strict=True):
        state.tokens_since_fired[10:] = 1000
        STEPS[name](state, x + shift, make_settings("topk", k=2, aux_k=3), 1e-3)
    for tensor in ("enc", "dec", "b_enc", "b_dec"):
        grads = [state.weights.tensors()[tensor].grad for state in states]
        torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("name", STEPS)
def test_decoder_directions_keep_unit_norm_and_their_gradient_is_orthogonal(name: str) -> None:
    state = make_state(6, 20)
    with torch.no_grad():
        state.weights.dec.div_(state.weights.dec.norm(dim=1, keepdim=True))
    before = state.weights.dec.detach().clone()
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    STEPS[name](state, x, make_settings("batchtopk", k=2), lr=0.1)
    assert state.weights.dec.grad is not None
    torch.testing.assert_close((state.weights.dec.grad * before).sum(1), torch.zeros(20, dtype=torch.float64))
    torch.testing.assert_close(state.weights.dec.detach().norm(dim=1), torch.ones(20, dtype=torch.float64))
    assert not torch.equal(state.weights.dec, before)


@pytest.mark.parametrize("name", STEPS)
def test_a_latent_is_dead_after_tokens_not_steps(name: str) -> None:
    config = make_settings("topk", k=1, dead_tokens=30)
    state = make_state(4, 3)
    with torch.no_grad():
        state.weights.enc.zero_()
        state.weights.b_enc.copy_(torch.tensor([2.0, 1.0, -1.0]))  # latent 0 always wins
    x = torch.zeros(10, 4, dtype=torch.float64)
    assert [float(STEPS[name](state, x, config, 0.0).n_dead) for _ in range(5)] == [0, 0, 0, 2, 2]
    assert state.tokens_since_fired.tolist() == [0, 50, 50]


@pytest.mark.parametrize("name", STEPS)
def test_threshold_starts_at_the_first_smallest_activation_and_follows_slowly(name: str) -> None:
    state = make_state(2, 2)
    with torch.no_grad():
        state.weights.enc.copy_(torch.eye(2))
        state.weights.b_enc.zero_()
        state.weights.b_dec.zero_()
    config = make_settings("batchtopk", k=1)
    STEPS[name](state, torch.tensor([[3.0, 1.0], [5.0, 2.0]], dtype=torch.float64), config, 0.0)
    assert float(state.threshold) == 3.0  # of 3 1 5 2 the two largest are selected
    STEPS[name](state, torch.tensor([[4.0, 1.0], [5.0, 2.0]], dtype=torch.float64), config, 0.0)
    assert float(state.threshold) == pytest.approx(3.01)  # 0.99 · 3 + 0.01 · 4


@pytest.mark.parametrize("name", STEPS)
def test_loss_of_one_token_by_hand(name: str) -> None:
    state = make_state(2, 2)
    with torch.no_grad():
        state.weights.enc.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        state.weights.dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        state.weights.b_enc.copy_(torch.tensor([0.5, 0.0]))
        state.weights.b_dec.copy_(torch.tensor([0.0, 1.0]))
    # x − b_dec = (3, −2): pre = (3.5, −2), f = (3.5, 0), x_hat = (3.5, 1), error = (−0.5, −2), mse = 0.25 + 4.
    config = make_settings("topk", k=2, options=SaeOptions(clip_grad_norm=None))
    stats = STEPS[name](state, torch.tensor([[3.0, -1.0]], dtype=torch.float64), config, 0.0)
    assert float(stats.mse) == pytest.approx(4.25)
    assert float(stats.l0) == 1
    # ∂mse/∂x_hat = 2 (x_hat − x) = (1, 4); only latent 0 is positive: ∂/∂pre_0 = 1.
    # By b_dec: (1, 4) − enc_0 · 1 = (0, 4). By enc_0: 1 · (x − b_dec) = (3, −2). By b_enc: (1, 0).
    # By dec_0: 3.5 · (1, 4) = (3.5, 14), without its part along (1, 0): (0, 14).
    w = state.weights
    expected = {
        "b_dec": [0.0, 4.0],
        "b_enc": [1.0, 0.0],
        "enc": [[3.0, -2.0], [0.0, 0.0]],
        "dec": [[0.0, 14.0], [0.0, 0.0]],
    }
    for tensor, values in expected.items():
        torch.testing.assert_close(w.tensors()[tensor].grad, torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_adam_sees_gradients_of_at_most_the_norm(name: str, clip: float) -> None:
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain, clipped = make_state(5, 6), make_state(5, 6)
    STEPS[name](plain, x, make_settings("topk", k=2, options=SaeOptions(clip_grad_norm=None)), 1e-3)
    STEPS[name](clipped, x, make_settings("topk", k=2, options=SaeOptions(clip_grad_norm=clip)), 1e-3)
    moments = [{key: s.optimizer.state[w]["exp_avg"] for key, w in s.trained.items()} for s in (plain, clipped)]
    norm = torch.cat([10 * moment.flatten() for moment in moments[0].values()]).norm()
    assert float(norm) > 0.5
    for key, moment in moments[0].items():
        torch.testing.assert_close(moments[1][key], moment * min(1.0, clip / float(norm)), rtol=1e-5, atol=1e-9)


class Several(Group):
    n_processes = n_data = 2


class Sharded(Group):
    n_processes = n_shards = 2


@pytest.mark.parametrize(
    ("device", "dtype", "precision", "group", "expected"),
    [
        ("cuda", torch.float32, torch.bfloat16, SOLO, True),
        ("cuda", torch.float32, torch.float32, SOLO, True),
        ("cpu", torch.float32, torch.bfloat16, SOLO, False),
        ("cuda", torch.float64, torch.bfloat16, SOLO, False),
        ("cuda", torch.float32, torch.float64, SOLO, False),
        ("cuda", torch.float32, torch.bfloat16, Several(), True),
        ("cuda", torch.float32, torch.bfloat16, Sharded(), False),
    ],
)
def test_kernels_take_the_step_where_a_gpu_has_all_latents(
    device: str, dtype: torch.dtype, precision: torch.dtype, group: Group, expected: bool
) -> None:
    config = StepSettings(arch="topk", k=1, dead_tokens=1, aux_k=1, precision=precision, group=group)
    assert takes_kernels(config, torch.device(device), dtype) == expected


def test_without_triton_a_gpu_takes_the_sparse_step_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = StepSettings(arch="topk", k=1, dead_tokens=1, aux_k=1)
    monkeypatch.setattr(step_module.importlib.util, "find_spec", lambda _: None)
    step_module._has_triton.cache_clear()
    try:
        for _ in range(2):
            assert not takes_kernels(config, torch.device("cuda"), torch.float32)
    finally:
        step_module._has_triton.cache_clear()
    assert [record.message[:26] for record in caplog.records] == ["Triton is not installed, s"]


def test_a_step_is_handed_to_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    state, x, config = make_state(4, 6), torch.zeros(2, 4, dtype=torch.float64), make_settings("topk", k=1)
    stats, given = sparse_step(copy.deepcopy(state), x, config, 0.5), []

    def kernel_step(*arguments: object) -> StepStats:
        given.append(arguments)
        return stats

    monkeypatch.setattr(step_module, "takes_kernels", lambda *_: True)
    monkeypatch.setattr(step_module, "_kernels", lambda: SimpleNamespace(kernel_step=kernel_step))
    assert take_step(state, x, config, 0.5) is stats
    assert given == [(state, x, config, 0.5)]


@pytest.mark.parametrize("name", STEPS)
def test_adam_keeps_what_the_options_say(name: str) -> None:
    state = make_state(6, 20)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    STEPS[name](state, x, make_settings("topk", k=2, options=SaeOptions(adam_beta1=0.5, adam_beta2=0.75)), lr=0.1)
    kept, grad = state.optimizer.state[state.weights.enc], state.weights.enc.grad
    assert grad is not None
    torch.testing.assert_close(kept["exp_avg"], 0.5 * grad)
    torch.testing.assert_close(kept["exp_avg_sq"], 0.25 * grad.square())
