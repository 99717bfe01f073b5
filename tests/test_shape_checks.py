"""The suite checks shape annotations while it runs; this proves that it would notice a wrong one."""

import jaxtyping
import pytest
import torch

from ask.answers import hits


def test_a_wrong_shape_is_noticed() -> None:
    logits, correct = torch.zeros(2, 3), torch.zeros(5, dtype=torch.int64)  # two questions, five answers
    with pytest.raises(jaxtyping.TypeCheckError):
        hits(logits, correct)
