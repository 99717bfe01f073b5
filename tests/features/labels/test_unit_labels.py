from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.labels.unit_labels import MIN_COVER, Carrier, collect_labels

NAMES = ("a", "b", "c")


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_joined_carriers_equal_the_dense_maximum(seed: int, n_carriers: int) -> None:
    rng = np.random.default_rng(seed)
    carriers = [
        Carrier(
            names=tuple(rng.choice([*NAMES, "unasked"], size=rng.integers(0, 4), replace=False)),
            degree=rng.choice([0.0, 0.3, 0.5, 1.0], size=7),
            hidden=rng.random(7) < 0.5 if rng.random() < 0.7 else None,
        )
        for _ in range(n_carriers)
    ]
    found = collect_labels(NAMES, carriers, eligible=np.ones(7, dtype=bool))
    for label, name in enumerate(NAMES):
        own = [carrier for carrier in carriers if name in carrier.names]
        most = np.max([np.zeros(7), *(carrier.degree for carrier in own)], axis=0)
        seen = np.zeros(7, dtype=bool)
        for carrier in own:
            seen |= (carrier.degree >= MIN_COVER) & (True if carrier.hidden is None else ~carrier.hidden)
        positive = most >= MIN_COVER
        for entries, expected in (
            (found.positive, positive),
            (found.touched, most > 0),
            (found.hidden, positive & ~seen),
        ):
            assert entries[entries[:, 1] == label, 0].tolist() == np.flatnonzero(expected).tolist()
