import pytest
import torch
from torch import nn

from demo.vlm.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(12, 12), (8, 30), (30, 8)])
def test_the_update_keeps_the_directions_and_evens_the_sizes(shape: tuple[int, int]) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    update = orthogonalise(gradient)
    inside = u.T @ update @ v.T  # diagonal in the singular vectors of the gradient
    sizes = inside.diagonal()
    assert sizes.min() > 0.3
    assert sizes.max() < 1.3
    torch.testing.assert_close(inside, torch.diag(sizes), atol=1e-4, rtol=0)


def test_it_agrees_with_torch_up_to_bfloat16() -> None:
    start = torch.randn(16, 24, generator=torch.Generator().manual_seed(1))
    gradients = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(2))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([ours], lr=0.02)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.03 * moved
