"""From edits to claims on models of known truth: nothing is found where nothing is, and what was planted is found."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from ask.cases import Case
from ask.packing import Asked
from ask.questions import Item
from steer.codes import VideoCodes
from steer.edits.operations import Operation
from steer.effects import ControlSums, Editor, draw_controls, effects
from steer.evidence.claims import claims
from steer.evidence.summary import summarise
from steer.reference import summarise as reference_of
from steer.tables import CONTROLS, EFFECTS
from steer.targets import Target
from tests.steer.effect_rows import NO_DOSES
from tests.steer.toy import LETTERS, N_VISUAL, SUBJECT, D, ToyVlm, counting_item, noncounting_item, toy_case, visual
from train_sae.sae import Sae

ABLATE = [Operation.parse("ablate")]
N_VIDEOS, N_LATENTS, N_TESTED = 14, 24, 6


def random_sae(generator: torch.Generator, planted: bool) -> Sae:
    """Latents with random directions; a planted one reads and writes the evidence alone."""
    directions = torch.randn(N_LATENTS, D, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    if planted:
        directions[:, 0] = 0.0
        directions[0] = torch.eye(D)[0]
    return Sae(
        architecture="jumprelu",
        k=4,
        W_enc=directions.T.contiguous(),
        W_dec=directions,
        b_enc=torch.zeros(N_LATENTS),
        b_dec=torch.zeros(D),
        threshold=torch.zeros(N_LATENTS),
        metadata={},
    )


def found(seed: int, n_tested: int, *, planted: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Summary and claims of some latents of a toy whose answers are random, or follow the evidence."""
    generator = torch.Generator().manual_seed(seed)
    sae, vlm = random_sae(generator, planted), ToyVlm()
    cases: list[Case] = []
    items: list[Item] = []
    for number in range(N_VIDEOS):
        own = 0.3 * torch.randn(N_VISUAL, D, generator=generator)
        answer = int(torch.randint(0, 3, (1,), generator=generator))
        if planted:
            own[:, 0] = 1.0 + 0.2 * torch.rand(N_VISUAL, generator=generator)
            answer = 2
        prefix = visual(own[:, 0], own[:, 4:])
        pair = (counting_item(f"v{number:02d}", answer_id=answer), noncounting_item(f"v{number:02d}"))
        cases.append(toy_case(vlm, prefix, pair))
        items += pair
    sample = torch.cat([case.sequences.visual for case in cases])
    editor = Editor(
        model=Asked(vlm=vlm, site="resid/0", letters=LETTERS),
        sae=sae,
        reference=reference_of(sample, sae),
        batch_size=64,
    )
    targets = [
        Target(id=str(latent), latents=(latent,), selected_by="sweep", subject=SUBJECT) for latent in range(n_tested)
    ]
    rows, controls = tables(editor, cases, targets, seed)
    screen = pd.DataFrame({"latent": range(N_LATENTS), "firing_rate": 0.5})
    summaries = summarise(rows, controls, screen, items, targets, ABLATE, seed)
    return summaries.summary, claims(summaries.summary, summaries.subjects, ABLATE, NO_DOSES)


def tables(
    editor: Editor, cases: Sequence[Case], targets: Sequence[Target], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of effects.parquet and controls.parquet."""
    rows, controls = [], []
    for target in targets:
        sums = ControlSums.start(target, ABLATE, draw_controls(editor, target, 20, seed))
        for case in cases:
            codes = VideoCodes.of(editor.sae, case.sequences.visual)
            rows += effects(editor, case, codes, target, ABLATE)
            sums.add(editor, case, codes)
        controls += sums.rows(len(cases), len(cases))
    return pd.DataFrame(rows, columns=EFFECTS.names), pd.DataFrame(controls, columns=CONTROLS.names)


@pytest.mark.slow
def test_where_nothing_is_p_values_are_uniform_and_nothing_is_claimed() -> None:
    p_values: list[float] = []
    against_controls: list[float] = []
    for seed in range(20):
        summary, claimed = found(seed, N_TESTED, planted=False)
        assert set(claimed["claim"]) <= {
            "no effect on the margin",
            "undecided",
            "generic damage",
            "not beyond controls",
            "too few controls",
            "too few videos",
        }
        p_values += summary["p_value"].tolist()
        against_controls += summary["control_p_value"].tolist()
    for values in (p_values, against_controls):
        assert len(values) == 20 * N_TESTED
        assert stats.kstest(values, "uniform").pvalue > 0.01
        assert np.mean(np.array(values) < 0.05) < 0.1


def test_what_was_planted_is_claimed_and_nothing_else() -> None:
    # Against 60 controls, p is 1/61 at best: q stays below 0.05 in families of up to three.
    summary, claimed = found(0, 3, planted=True)
    assert claimed["claim"].tolist()[0] == "specific"
    assert "specific" not in claimed["claim"].tolist()[1:]
    assert claimed["direction"].tolist()[0] == "lower"
    assert summary["control_p_value"].tolist()[0] < 0.05
