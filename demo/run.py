"""`video-sae demo`: every stage on the embedded default, each through the same function as its subcommand.

Stages are resumable, so the demo is too: run it again, and it continues where it was.
"""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ask.config import ProfileConfig
from browse.config import BrowseConfig
from collect.artefact.lock import writing
from collect.config import CollectConfig
from collect.errors import UserError
from collect.printable import Lines
from demo.config import DemoConfig
from demo.world.generate import WorldConfig, generate
from demo.world.scene import SAMPLES
from features.config import FeaturesConfig
from report.config import ReportConfig
from steer.config import SteerConfig
from train_sae.config import TrainConfig

log = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parent / "weights"
MIN_VIDEOS = 5  # labels of a small world are rare; the report states the number
CLIPS_GB = 0.04
"""Of the page that is written as files: clips of a third of the videos, those that most latents show. `browse` without
`--export` makes the others when they are looked at."""


def demo(config: DemoConfig) -> Path:
    """Run everything and return the path of the report.

    Raises:
        UserError: the embedded model is missing, the run folder holds a demo with other arguments, or another process
            is making it.
    """
    if not (WEIGHTS / "model.safetensors").is_file():
        raise UserError(f"{WEIGHTS} has no model.safetensors: install video-sae again, or clone it with its weights.")
    with writing(config.out):
        return _demo(config)


def _demo(config: DemoConfig) -> Path:
    from ask.profile import run_profile
    from ask.reading import picked_site
    from browse.run import browse
    from collect.run import collect
    from features.run import features
    from report.page import report
    from steer.run import steer
    from train_sae.run import train

    run, model, seed = config.out, str(WEIGHTS), config.seed
    data = run / "data"
    world = WorldConfig(seed=seed, n_videos=config.videos)
    _timed("1/8 generate", lambda: generate(data, world, config.workers))
    _timed(
        "2/8 profile",
        lambda: run_profile(ProfileConfig(data=data, model=model, out=run, frames=str(SAMPLES), items=60, seed=seed)),
    )
    site = picked_site(run)
    gather = CollectConfig(data=data, model=model, out=run, sites=(site,), frames=str(SAMPLES), workers=config.workers)
    _timed("3/8 collect", lambda: collect(gather))
    learn = TrainConfig(
        run=run,
        site=site,
        d_sae=(config.d_sae,),
        k=(config.k,),
        epochs=config.epochs,
        batch_size=1024,
        lr=(2e-3,),
        seed=seed,
        options=("checkpoint_every=500",),
    )
    _timed("4/8 train", lambda: train(learn))
    name = learn.sae_name
    describe = FeaturesConfig(run=run, sae=name, min_videos=MIN_VIDEOS, media=16, seed=seed)
    _timed("5/8 features", lambda: features(describe))
    act = SteerConfig(
        run=run,
        sae=name,
        top=2,
        associated=2,
        operations=("ablate",),  # doses tell what scaling does
        analyses=("doses", "swaps", "events", "rivals", "counters"),
        budget_minutes=1.0,
        controls=20,
        items=(90, 45),
        batch_size=8,
        seed=seed,
    )
    _timed("6/8 steer", lambda: steer(act))
    _timed("7/8 browse", lambda: browse(BrowseConfig(run=run, export=run / "browse", cache_gb=CLIPS_GB)))
    page: Path = _timed("8/8 report", lambda: report(ReportConfig(run=run)))
    log.info("%s", Lines(closing_table(run, name, site)))
    # As it was started: without an activated environment the bare name would not be found.
    program = sys.argv[0] if Path(sys.argv[0]).name == "video-sae" else "video-sae"
    log.info("To explore its latents: %s browse --run %s", shlex.quote(program), shlex.quote(str(run)))
    return page


def _timed(title: str, stage: Callable[[], Any]) -> Any:
    log.info("%s", title)
    started = time.monotonic()
    result = stage()
    log.info("%s: %.0f s", title, time.monotonic() - started)
    return result


def closing_table(run: Path, sae: str, site: str) -> str:
    """The few figures that say what the run found, one per line."""
    from features.reading import read_features_tables
    from steer.reading import read_effects_tables
    from train_sae.reading import read_summary

    quality = read_summary(run / "sae" / sae)["held_out"]
    catalogue = read_features_tables(run / "features" / sae)[0]["catalogue"]
    found = read_effects_tables(run / "steer" / sae)[0]
    claimed = found["claims"][found["claims"]["operation"] == "ablate"].sort_values("delta_margin")
    specific = claimed[claimed["claim"] == "specific"]
    labelled = catalogue[catalogue["labelled"]].sort_values(["top_auroc", "latent"], ascending=[False, True])
    best = labelled.iloc[0] if len(labelled) else None
    rows = [
        ("site", site),
        ("held-out FVU", f"{quality['fvu']:.3f}"),
        ("held-out L0", f"{quality['l0']:.1f}"),
        ("labelled latents", f"{len(labelled)} of {len(catalogue)}"),
        (
            "best labelled latent",
            "none" if best is None else f"{best['latent']} = {best['top_label']} (AUROC {best['top_auroc']:.3f})",
        ),
        ("specific ablations", f"{len(specific)} of {len(claimed)}"),
        ("double dissociations", str(len(found["dissociations"]))),
        (
            "strongest specific one",
            "none"
            if not len(specific)
            else f"{specific.iloc[0]['target']} on “{specific.iloc[0]['subject']}”: margin "
            f"{specific.iloc[0]['delta_margin']:+.2f}, other counting questions "
            f"{specific.iloc[0]['delta_margin_other']:+.2f}",
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
