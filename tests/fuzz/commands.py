"""The commands that read artefacts: their words, what is cleared before them, and what they may write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import video_sae

SAE, OTHER = "a", "b"
SITE = "resid/0"
MIRROR = "http://mirror.invalid"
"""Where Perception Test is served, to whoever asks the trial's own proxy."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line, run in the world's folder."""

    name: str
    words: tuple[str, ...]
    cleared: tuple[str, ...] = ()
    """Removed before the command, so that it has to make them again."""
    stopped: str | None = None
    """Folder of the world that is as the interrupted stage left it."""
    outputs: tuple[str, ...] = ()
    """What must be as in the reference afterwards; all that may be written."""
    spared: tuple[str, ...] = ()
    """What is among the outputs' folders but made by another command."""
    is_first: bool = False
    """Whether it is the first to read its inputs, so that nothing made before vouches for them."""
    guard: str | None = None
    """The command that has to find what this one leaves alone for later readers: nobody reads a large store again only
    to go on with it."""
    lists: bool = False
    """Whether its refusal is a list of all that is wrong, not one sentence."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_COLLECT = _words(
    f"collect --data data --model model --out run --sites {SITE} --select ids.txt --frames 8 --shard-rows 256 "
    "--workers 1 --batch-size 2"
)
_TRAIN = _words(
    f"train --run run --site {SITE} --name {SAE} --d-sae 24 --k 4 --batch-size 64 --epochs 2 "
    "--options checkpoint_every=2 log_every=2"
)
_FEATURES = _words(
    f"features --run run --sae {SAE} --min-videos 1 --permutations 20 --bootstraps 20 --media 2 --controls 4 "
    "--fdr 0.99 --options combinations=2 brightness=1"
)
_STEER = _words(f"steer --run run --sae {SAE} --top 1 --associated 1 --controls 2 --items 6 3 --operations ablate")
_EXPORT = _words(f"export --run run --sae {SAE} --to hf set")
_DOWNLOAD = _words(f"download --split sample --out downloaded --base-url {MIRROR} --attempts 2 --timeout-s 5")
_ACTIVATIONS, _SAE = "run/activations", f"run/sae/{SAE}"
_FEATURES_OUT, _STEER_OUT = f"run/features/{SAE}", f"run/steer/{SAE}"
_RECORD = ("downloaded/download.json",)
"""Says what came from where; what came is what counts."""
_COMPARED = ("run/sae/comparison.parquet", "run/sae/comparison.svg")
"""Of all SAEs of the run, after each training; what else lies in another one's folder is no business of it."""
_LATER = (f"{_SAE}/evaluation.json",)
_LOGGED = (*_LATER, f"{_SAE}/metrics.jsonl")
"""A resumed training keeps the earlier lines of its log, whose numbers nothing else repeats."""


def _named(commands: Iterable[Command]) -> dict[str, Command]:
    return {command.name: command for command in commands}


COMMANDS = _named(
    [
        *(
            [Command(name="check", words=_words("check --data data"), lists=True)]
            if any(command.name == "check" for command in video_sae.COMMANDS)
            else []
        ),
        Command(name="plan", words=_words("plan --model model --data data --select ids.txt")),
        Command(
            name="profile",
            words=_words("profile --data data --model model --out run --frames 2 --items 6"),
            cleared=("run/profile",),
            is_first=True,
            outputs=("run/profile",),
        ),
        Command(
            name="profile again",
            words=_words("profile --data data --model model --out run --frames 2 --items 6"),
            outputs=("run/profile",),
        ),
        Command(
            name="profile hub",
            words=_words("profile --data hub --model model --out hub-run --frames 2 --items 6"),
            cleared=("hub-run",),
            is_first=True,
            outputs=("hub-run",),
        ),
        Command(name="collect", words=_COLLECT, cleared=(_ACTIVATIONS,), outputs=(_ACTIVATIONS,), is_first=True),
        Command(name="resume collect", words=_COLLECT, stopped=_ACTIVATIONS, outputs=(_ACTIVATIONS,), guard="verify"),
        Command(name="collect again", words=_COLLECT, outputs=(_ACTIVATIONS,)),
        Command(name="verify", words=_words("verify --run run --workers 1"), outputs=(_ACTIVATIONS,), lists=True),
        Command(
            name="repair",
            words=_words("verify --run run --workers 1 --repair"),
            outputs=(_ACTIVATIONS,),
            lists=True,
        ),
        Command(name="archive plain", words=_words("archive --run run --at plain"), outputs=("plain",)),
        Command(name="archive packed", words=_words("archive --run run --at packed --compress"), outputs=("packed",)),
        Command(
            name="restore plain",
            words=_words("archive --run run --at plain --restore"),
            cleared=(_ACTIVATIONS,),
            outputs=(_ACTIVATIONS,),
        ),
        Command(
            name="restore packed",
            words=_words("archive --run run --at packed --restore"),
            cleared=(_ACTIVATIONS,),
            outputs=(_ACTIVATIONS,),
        ),
        Command(name="train", words=_TRAIN, cleared=(_SAE,), outputs=(_SAE, *_COMPARED), spared=_LATER),
        Command(name="resume train", words=_TRAIN, stopped=_SAE, outputs=(_SAE, *_COMPARED), spared=_LOGGED),
        Command(name="train again", words=_TRAIN, outputs=(_SAE, *_COMPARED)),
        Command(
            name="train another",
            words=(*_TRAIN[: _TRAIN.index(SAE)], OTHER, *_TRAIN[_TRAIN.index(SAE) + 1 :]),
            cleared=(f"run/sae/{OTHER}",),
            outputs=(f"run/sae/{OTHER}", *_COMPARED),
        ),
        Command(
            name="evaluate",
            words=_words(f"evaluate --run run --sae {SAE} --questions 6"),
            cleared=(f"{_SAE}/evaluation.json",),
            outputs=(f"{_SAE}/evaluation.json",),
        ),
        Command(name="features", words=_FEATURES, cleared=(_FEATURES_OUT,), outputs=(_FEATURES_OUT,)),
        Command(name="resume features", words=_FEATURES, stopped=_FEATURES_OUT, outputs=(_FEATURES_OUT,)),
        Command(name="features again", words=_FEATURES, outputs=(_FEATURES_OUT,)),
        Command(name="steer", words=_STEER, cleared=(_STEER_OUT,), outputs=(_STEER_OUT,)),
        Command(name="resume steer", words=_STEER, stopped=_STEER_OUT, outputs=(_STEER_OUT,)),
        Command(name="steer again", words=_STEER, outputs=(_STEER_OUT,)),
        Command(
            name="report",
            words=_words(f"report --run run --sae {SAE}"),
            cleared=("run/report",),
            outputs=("run/report",),
        ),
        Command(name="export", words=_EXPORT, cleared=("set",), outputs=("set",)),
        Command(name="export again", words=_EXPORT, outputs=("set",)),
        Command(name="download", words=_DOWNLOAD, stopped="downloaded", outputs=("downloaded",), spared=_RECORD),
        Command(name="download again", words=_DOWNLOAD, outputs=("downloaded",), spared=_RECORD),
    ]
)
