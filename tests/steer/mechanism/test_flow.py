"""Routes on a tiny model: without a cut they are the plain ablation, and what nobody reads does nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ask.cases import build_case, embed_items, residuals_at
from ask.packing import Asked
from collect.tokens.grid import TokenGrid
from collect.vlm import VideoVlm
from collect.vlm.conformance import clip_of
from steer.codes import CodedCases, Scene, VideoCodes
from steer.effects import Editor
from steer.mechanism.flow import ROUTES, flow_rows, windows
from steer.mechanism.matched import Bench, change_of
from steer.mechanism.occurrences import EventLabel
from steer.mechanism.tables import FLOW, ROUTE_NAMES
from steer.reference import summarise
from tests.collect.conftest import tiny_folders, tiny_vlms  # noqa: F401  # fixtures
from tests.collect.video_files import noise
from tests.steer.mechanism.toy_bench import EVENT, segment, target, video_of
from tests.steer.test_hooked import strong_sae
from tests.steer.toy import counting_item

CLIP = clip_of([noise(48, 64, seed=i) for i in range(4)])
ITEM = counting_item("v", 0)


class OneVideo(CodedCases):
    def __init__(self, vlm: VideoVlm) -> None:
        self.model = Asked.at(vlm, "resid/0")
        prefix = vlm.with_features([vlm.prefix(CLIP)])[0]
        seq = residuals_at(vlm, embed_items(vlm, prefix, (ITEM,), packed=True), self.model.site)
        self.case = build_case(self.model, seq, (ITEM,))
        self.sae = strong_sae(seq.visual.float())
        self.grid: TokenGrid = prefix.grid

    def __getitem__(self, video_id: str) -> Any:
        return self.case, VideoCodes.of(self.sae, self.case.sequences.visual)

    def scene(self, video_id: str) -> Scene:  # noqa: ARG002
        start, end = self.grid.spans_s[1]
        event = segment(0)
        event = type(event)(**{**vars(event), "start_s": float(start), "end_s": float(end)})
        return Scene(video=video_of("v", [event]), grid=self.grid)


@pytest.fixture
def bench(tiny_vlms: Callable[[str], VideoVlm]) -> Bench:  # noqa: F811
    cases = OneVideo(tiny_vlms("perception_lm"))
    usual = summarise(cases.case.sequences.visual.float(), cases.sae)
    editor = Editor(model=cases.model, sae=cases.sae, reference=usual, batch_size=2)
    return Bench(editor=editor, cases=cases, items=(ITEM,), seed=0)


def test_rows_hold_every_route_and_window_and_free_is_the_plain_ablation(bench: Bench) -> None:
    case, codes = bench.cases["v"]
    own = target(int(codes.latent[0]))
    # Latents fire in all frames, so that strong firing leaves no quiet one: it is put out of reach.
    quiet = summarise(1e6 * case.sequences.visual.float(), bench.editor.sae)
    editor = Editor(model=bench.editor.model, sae=bench.editor.sae, reference=quiet, batch_size=2)
    bench = Bench(editor=editor, cases=bench.cases, items=bench.items, seed=0)
    rows = flow_rows(bench, own, EventLabel(kind="action", label=EVENT, agreement=1.0))
    n_layers = bench.editor.model.vlm.n_layers - 1
    assert {row["route"] for row in rows} == set(ROUTE_NAMES)
    assert len(rows) == 2 + len(windows(n_layers)) * len(ROUTES)
    assert all(set(row) == set(FLOW.names) for row in rows)
    values = codes.columns(own.latents)
    ablation = change_of(codes, own.latents, torch.zeros_like(values), bench.editor.sae.W_dec)
    plain = bench.shifts(case, [ablation]).count[0]
    found = {(row["route"], row["first_layer"], row["last_layer"]): row for row in rows}
    assert found["free", 0, n_layers - 1]["ablation"] == pytest.approx(plain, abs=1e-5)
    assert found["free", 0, n_layers - 1]["cut"] == pytest.approx(0.0, abs=1e-6)
    whole = found["all", 0, n_layers - 1]
    assert not np.isnan(whole["control"])
    assert whole["cut"] != whole["control"]


def test_a_video_without_an_event_is_left_out(bench: Bench) -> None:
    _, codes = bench.cases["v"]
    own = target(int(codes.latent[0]))
    assert flow_rows(bench, own, EventLabel(kind="action", label="another", agreement=1.0)) == []
