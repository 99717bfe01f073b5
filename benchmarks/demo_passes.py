"""The demo's videos, activations and SAE, made as the demo makes them, ready for edited passes."""

from pathlib import Path

from ask.cases import Cases
from collect.config import CollectConfig
from collect.run import collect
from demo.config import DemoConfig
from demo.run import WEIGHTS
from demo.world.generate import WorldConfig, generate
from demo.world.scene import SAMPLES
from steer.codes import CodedCases
from steer.config import SteerConfig
from steer.effects import Editor
from steer.opened import load_inputs
from steer.reference import reference
from steer.screens.passes import Passes
from train_sae.config import TrainConfig
from train_sae.run import train

SITE = "resid/2"
BATCH = 8
"""Edits per pass."""


def demo_passes(folder: Path, *, quick: bool) -> Passes:
    """The demo's videos, activations and SAE, made as the demo makes them."""
    usual = DemoConfig()
    data, run = folder / "data", folder / "run"
    generate(data, WorldConfig(seed=0, n_videos=36 if quick else usual.videos), None)
    collect(CollectConfig(data=data, model=str(WEIGHTS), out=run, sites=(SITE,), frames=str(SAMPLES)))
    train(
        TrainConfig(
            run=run,
            site=SITE,
            d_sae=(128 if quick else usual.d_sae,),
            k=(usual.k,),
            epochs=2.0 if quick else usual.epochs,
            batch_size=1024,
            lr=(2e-3,),
        )
    )
    inputs = load_inputs(SteerConfig(run=run, items=(90, 45)))
    cases = CodedCases(Cases(inputs.asked, inputs.sae.site), inputs.sae)
    editor = Editor(
        model=cases.cases.model,
        sae=inputs.sae,
        reference=reference(inputs.asked.store, inputs.sae.site, inputs.sae, inputs.asked.train_videos),
        batch_size=BATCH,
    )
    return Passes(editor, cases)
