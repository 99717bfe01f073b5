"""The reference's losses and gradients, judged by SAELens itself."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train_sae.conftest import random_weights
from train_sae.config import Architecture
from train_sae.options import SaeOptions
from train_sae.step.architectures import Weights, trained_names
from train_sae.step.reference import loss, reference_step
from train_sae.step.settings import StepSettings
from train_sae.step.state import TrainState

D_IN, D_SAE, K = 12, 40, 4
DEAD_TOKENS = 100

CASES: list[tuple[Architecture, dict[str, Any]]] = [
    ("topk", {}),
    ("batchtopk", {}),
    ("matryoshka_batchtopk", {"matryoshka_widths": (5, 20, 40)}),
    ("standard", {"l1_coefficient": 0.7}),
    ("standard", {"l1_coefficient": 0.7, "lp_norm": 2.0, "l1_warm_up_steps": 10}),
    ("gated", {"l1_coefficient": 0.7}),
    ("jumprelu", {"l0_coefficient": 0.3, "jumprelu_bandwidth": 0.5}),
    ("jumprelu", {"l0_coefficient": 0.3, "jumprelu_bandwidth": 0.5, "jumprelu_ste_to_input": True}),
    ("jumprelu", {"jumprelu_bandwidth": 0.5, "jumprelu_sparsity_loss_mode": "tanh", "jumprelu_tanh_scale": 2.0}),
    ("jumprelu", {"jumprelu_bandwidth": 0.5, "jumprelu_sparsity_loss_mode": "quadratic", "target_l0": 3.0}),
    ("jumprelu", {"jumprelu_bandwidth": 0.5, "pre_act_loss_coefficient": 0.2}),
    ("matching_pursuit", {}),
]


def sae_lens_twin(arch: Architecture, weights: Weights, options: dict[str, Any]) -> Any:
    """A SAELens training SAE with the same weights and options."""
    from sae_lens.registry import get_sae_training_class

    sae_class, config_class = get_sae_training_class(arch)
    own: dict[str, Any] = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float64"}
    if arch in ("topk", "batchtopk", "matryoshka_batchtopk"):
        own |= {"k": K}
    if arch == "matching_pursuit":
        own |= {"max_iterations": K, "decoder_init_norm": 1.0}
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    sae: Any = sae_class(config_class(**own, **lists))
    bias = {"b_gate": weights.b_enc, "b_mag": weights.b_mag, "r_mag": weights.r_mag}
    tensors = {"W_dec": weights.dec, "b_dec": weights.b_dec} | (bias if arch == "gated" else {"b_enc": weights.b_enc})
    tensors["threshold"] = weights.threshold
    with torch.no_grad():
        if arch != "matching_pursuit":
            sae.W_enc.copy_(weights.enc.T)
        else:
            del tensors["b_enc"]
        for name, tensor in tensors.items():
            if tensor is not None:
                getattr(sae, name).data = tensor.detach().clone()
    return sae


@pytest.mark.filterwarnings("ignore")  # the libraries that sae_lens imports warn about themselves
@pytest.mark.parametrize(("arch", "given"), CASES)
def test_losses_and_gradients_are_those_of_sae_lens(arch: Architecture, given: dict[str, Any]) -> None:
    from sae_lens.saes.sae import TrainStepInput

    weights = random_weights(arch, D_IN, D_SAE)
    weights = Weights.from_tensors({name: tensor.double() for name, tensor in weights.tensors().items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = sae_lens_twin(arch, weights, given)
    state = TrainState(weights, trained_names(arch, weights))
    state.step = 4
    options = SaeOptions(**given)
    settings = StepSettings(arch=arch, k=K, dead_tokens=DEAD_TOKENS, aux_k=2, precision=torch.float64, options=options)
    x = 2 * torch.randn(30, D_IN, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    # AuxK is ours: SAELens's is of another weight and without a ReLU. Jumprelu's loss for dead latents is the same.
    dead = torch.arange(D_SAE) % 5 == 0 if arch == "jumprelu" else torch.zeros(D_SAE, dtype=torch.bool)
    warm_up = min(1.0, 4 / given["l1_warm_up_steps"]) if "l1_warm_up_steps" in given else 1.0
    coefficients = {"l1": options.l1_coefficient * warm_up, "l0": options.l0_coefficient}
    theirs = twin.training_forward_pass(TrainStepInput(x, coefficients, dead, 4, is_logging_step=False))
    ours = loss(state, x, settings, dead)
    torch.testing.assert_close(ours.total, theirs.loss)
    torch.testing.assert_close(ours.mse, theirs.losses["mse_loss"])
    torch.testing.assert_close(ours.f, theirs.feature_acts)
    assert 0 < int((ours.f > 0).sum()) < ours.f.numel()

    theirs.loss.backward()
    ours.total.backward()

    def sideways(grad: Tensor | None) -> Tensor:
        """SAELens lets decoder norms drift and divides by them, which adds gradients along the directions only."""
        assert grad is not None
        dec = weights.dec.detach()
        return grad - (grad * dec).sum(1, keepdim=True) * dec

    torch.testing.assert_close(sideways(weights.dec.grad), sideways(twin.W_dec.grad))
    torch.testing.assert_close(weights.b_dec.grad, twin.b_dec.grad)
    if arch != "matching_pursuit":
        torch.testing.assert_close(weights.enc.grad, twin.W_enc.grad.T)
        torch.testing.assert_close(weights.b_enc.grad, (twin.b_gate if arch == "gated" else twin.b_enc).grad)
    for name in ("threshold", "b_mag", "r_mag"):
        mine = getattr(weights, name)
        if mine is not None:
            torch.testing.assert_close(mine.grad, getattr(twin, name).grad)


@pytest.mark.parametrize("arch", ["standard", "gated", "jumprelu", "matching_pursuit"])
def test_every_dense_architecture_learns_and_keeps_its_constraints(arch: Architecture) -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(10, D_IN, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    weights = random_weights(arch, D_IN, D_SAE)
    state = TrainState(weights, trained_names(arch, weights))
    options = SaeOptions(l1_coefficient=0.05, l0_coefficient=0.05)
    settings = StepSettings(arch=arch, k=K, dead_tokens=10_000, aux_k=2, options=options)
    losses: list[float] = []
    for _ in range(150):
        active = torch.rand(200, 10, generator=generator) < 0.2
        losses.append(float(reference_step(state, (3.0 * active) @ directions, settings, 1e-2).mse))
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10])
    torch.testing.assert_close(weights.dec.detach().norm(dim=1), torch.ones(D_SAE))
    assert weights.threshold is None or bool((weights.threshold >= 0).all())
