"""What is usual at the site, counted by hand."""

import pytest
import torch

from steer.reference import summarise
from tests.steer.toy import toy_sae


def test_rates_means_and_quantiles_by_hand() -> None:
    sample = torch.zeros(4, 8)
    sample[:, 0] = torch.tensor([0.0, 1.0, 3.0, -5.0])  # latent 0 fires twice, at 1 and 3
    found = summarise(sample, toy_sae())
    assert found.firing_rate.tolist() == [0.5] + [0.0] * 7
    assert found.mean_active.tolist() == [2.0] + [0.0] * 7
    assert found.quantile(0, 0.5) == pytest.approx(2.0)
    assert found.quantile(0, 1.0) == pytest.approx(3.0)
    assert found.quantile(1, 0.5) == 0.0  # never fires
    # norms 0, 1, 3, 5; torch's median is the lower of the two middle ones
    assert found.median_norm == 1.0
