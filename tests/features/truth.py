"""How true are the names of a demo's catalogue? `python -m tests.features.truth RUN`

Against everything that the demo's world rendered (`tests.features.rendered`), on held-out videos: a name is right if
what it names is the rendered concept that correlates best with the latent's activation, or correlates at least 0.9
times as much as the best one. Recall is about latents that follow some concept (AUROC of 0.95 or more over all tokens):
how many of them are named, and named rightly; and about the concepts that some latent follows: how many a right name
means, or tells best of all concepts.

Nothing of `features` takes part but the files that it wrote.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import zarr
from jaxtyping import Float32, Float64
from scipy import sparse, stats

from collect.artefact.folder import read_table
from collect.data.split import held_out_ids
from collect.reading import ActivationStore
from demo.vlm.vocabulary import ACTIONS, COLOURS, SHAPES
from demo.world.scene import Scene
from demo.world.script import draw_scene
from tests.features.rendered import concept_matrix

CLOSE = 0.9
"""Share of the best correlation at which a name is still right."""
FOLLOWS = 0.95
"""AUROC from which a latent follows a concept."""
_EVENTS = {f"{word} something": kind for kind, word in ACTIONS.items()} | {
    "swapping two cups": "swap",
    "interaction tapping": "tap",
}
_CLICK = "object click"


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Correlations and AUROCs of all latents with all rendered concepts on held-out videos."""

    concepts: list[str]
    correlation: Float64[np.ndarray, "latent concept"]
    auroc: Float64[np.ndarray, "latent concept"]

    def best(self, latent: int) -> tuple[str, float]:
        """The concept that correlates most."""
        index = int(self.correlation[latent].argmax())
        return self.concepts[index], float(self.correlation[latent, index])

    def of_name(self, latent: int, meanings: Sequence[str]) -> float:
        """Correlation of what a name means; of several ways to render it, the one that correlates most."""
        own = [self.concepts.index(name) for name in meanings if name in self.concepts]
        return float(self.correlation[latent, own].max()) if own else 0.0


def meanings(kind: str, level: str, label: str) -> list[str]:
    """Rendered concepts that a label of the catalogue speaks of; none where the world renders nothing like it."""
    match kind:
        case "object":
            return _both(_thing(label))
        case "part":
            part, _, name = label.partition(" of ")
            return [f"{'rim' if part == 'edge' else part}: {_thing(name)}"]
        case "sight":
            form, _, name = label.removesuffix(" at first sight").partition(" of ")
            wording = {
                "first sight": "first sight",
                "centre": "first sight of the centre",
                "arrival": "first sight after the start",
            }
            return [f"{wording[form]}: {_thing(name)}"]
        case "state" if label.startswith("centre of "):
            return [f"centre: {concept}" for concept in meanings(kind, level, label.removeprefix("centre of "))]
        case "state":
            state, _, name = label.partition(" ")
            if state in ("hidden", "visible"):
                return ["hidden ball" if state == "hidden" else "cup-game ball"]  # only these are annotated as masked
            if state == "occluder":
                return _both(_thing(name))
            if state == "occluding":
                return ["cup with the ball"]
            if name == "cup":
                return [f"{state}: cup"]
            return [] if state == "moving" else _both(_thing(name))
        case "role":
            return _role(label)
        case "action" | "sound":
            return _event(label, level)
        case "scene":
            return _scene(label)
        case "light":
            return ["frame: bright", "gain"] if label == "bright frame" else []
        case "place" | "time":
            return [_place(label)]
        case _:
            raise AssertionError(f"no meaning for the kind {kind}")


def _thing(name: str) -> str:
    return f"name: {name}" if name in (*COLOURS, *SHAPES) else name


def _both(concept: str) -> list[str]:
    return [concept, f"box: {concept}"]


def _role(label: str) -> list[str]:
    if label.startswith("centre of "):
        return [f"centre: {concept}" for concept in _role(label.removeprefix("centre of "))]
    if match := re.fullmatch(r"(\w+) (?:during|when|since) (.*?)(?: begins)?", label):
        return _beside(match[1], label.split()[1], match[2])
    who, _, event = re.sub(" in | of ", "|", label, count=1).partition("|")
    if event == "any event":
        return ["hand at work" if who == "actor" else "acted on"]
    kind = _EVENTS[event]
    if who in ("hand", "actor"):
        return [f"hand: {kind}"]
    return [f"acted on: {kind}" if who == "object" else f"{who} acted on: {kind}"]


def _beside(head: str, form: str, event: str) -> list[str]:
    """A thing in the frames of an event whose objects are not annotated: the lamp that clicks, the cups of a swap."""
    if event == _CLICK:
        if form == "since":
            return [f"{head} since click"]
        return ["lamp turns on"] if head == "lamp" else []
    return [f"{head} {form} swap"] if _EVENTS[event] == "swap" else []


def _event(label: str, level: str) -> list[str]:
    form, name = "", label
    for prefix in ("after ", "since "):
        if label.startswith(prefix):
            form, name = prefix.strip(), label.removeprefix(prefix)
    if name.endswith(" begins"):
        form, name = "begins", name.removesuffix(" begins")
    if name == _CLICK:
        return ["frame: lamp has been on"] if form == "since" else ["frame: lamp turns on"]
    kind = _EVENTS[name]
    if level == "token":
        return [{"": "taking part", "begins": "taking part begins", "after": "after"}[form] + f": {kind}"]
    return [
        f"frame: {' '.join(part for part in (form.replace('begins', ''), kind) if part)}"
        + " begins" * (form == "begins")
    ]


def _scene(label: str) -> list[str]:
    if label.startswith("video with "):
        name = label.removeprefix("video with ")
        return ["video: lamp turns on" if name == _CLICK else f"video: {_EVENTS[name]}"]
    if label.endswith(" in view"):
        name = label.removesuffix(" in view")
        return (
            [f"frame: {name.replace(' objects', ' things')}"] if "or more" in name else [f"frame with: {_thing(name)}"]
        )
    return [{"cup game": "frame: cup game", "camera moving": "frame: camera moves"}[label]]


def _place(label: str) -> str:
    numbers = [int(number) - 1 for number in re.findall(r"\d+", label)]
    if label.startswith("time steps 1 to "):
        return f"time before {numbers[1] + 1}"
    if label.startswith("time steps "):
        return f"time from {numbers[0]} on"
    if label.startswith("time step "):
        return f"time {numbers[0]}"
    if label.startswith(("row ", "column ")):
        return f"{label.split()[0]} {numbers[0]}"
    return label.removesuffix(" of the frame")


def read_truth(run: Path, sae: str) -> Truth:
    """Correlate the stored codes of held-out videos with what was rendered there."""
    store = ActivationStore.open(run / "activations")
    held = held_out_ids((video.video_id, video.split) for video in store.videos)
    videos = [video for video in store.videos if video.video_id in held]
    scenes = [_scene_of(run / "data", video.video_id) for video in videos]
    concepts, values = concept_matrix([(scene, video.grid) for scene, video in zip(scenes, videos, strict=True)])
    group = zarr.open_group(run / "features" / sae / "codes.zarr", mode="r")
    whole = sparse.csr_array(
        (np.asarray(group["values"]), np.asarray(group["indices"]), np.asarray(group["indptr"])),
        shape=(store.n_tokens, int(str(group.attrs["d_sae"]))),
    )
    rows = np.concatenate([np.arange(video.row_start, video.row_stop) for video in videos])
    codes = whole[rows].astype(np.float64)
    return Truth(
        concepts=concepts, correlation=_correlations(codes, values), auroc=_aurocs(sparse.csc_array(codes), values)
    )


def _scene_of(data: Path, video_id: str) -> Scene:
    """The script of a video, checked against what was written down when the video was made."""
    seed = json.loads((data / "config.json").read_text())["arguments"]["seed"]
    known = json.loads((data / "truth" / f"{video_id}.json").read_text())
    scene = draw_scene(seed, int(video_id.removeprefix("video_")))
    assert known["kind"] == scene.kind, f"{video_id} was made from another script"
    assert known["lamp_on"] == [list(stay) for stay in scene.lamp_on], f"{video_id} was made from another script"
    assert [toy["colour"] for toy in known["toys"]] == [toy.colour for toy in scene.toys]
    return scene


def _correlations(
    codes: sparse.csr_array, values: Float32[np.ndarray, "token concept"]
) -> Float64[np.ndarray, "latent concept"]:
    centred = values - values.mean(axis=0, dtype=np.float64)
    mean = np.asarray(codes.mean(axis=0)).reshape(-1)
    spread = np.sqrt(np.asarray(codes.multiply(codes).mean(axis=0)).reshape(-1) - mean**2)
    scale = spread[:, None] * centred.std(axis=0)[None, :] * len(values)
    return np.divide(codes.T @ centred, scale, out=np.zeros(scale.shape), where=scale > 1e-9)


def _aurocs(
    codes: sparse.csc_array, values: Float32[np.ndarray, "token concept"]
) -> Float64[np.ndarray, "latent concept"]:
    """AUROC of every latent for every concept that is 0 or 1; ½ for others."""
    binary = ((values == 0) | (values == 1)).all(axis=0)
    positives = (values == 1).sum(axis=0).astype(np.float64)
    out = np.full((codes.shape[1], values.shape[1]), 0.5)
    usable = binary & (positives > 0) & (positives < len(values))
    for latent in range(codes.shape[1]):
        entries = slice(codes.indptr[latent], codes.indptr[latent + 1])
        n_zero = len(values) - (entries.stop - entries.start)
        rank = stats.rankdata(codes.data[entries]) + n_zero
        zero_rank = (n_zero + 1) / 2
        total = (rank - zero_rank) @ values[codes.indices[entries]][:, usable] + zero_rank * positives[usable]
        n = positives[usable]
        out[latent, usable] = (total - n * (n + 1) / 2) / (n * (len(values) - n))
    return out


def judge_names(truth: Truth, catalogue: pd.DataFrame) -> pd.DataFrame:
    """One row per named latent: the best rendered concept, and whether the name is right."""
    rows: list[Mapping[str, object]] = []
    for row in catalogue[catalogue["labelled"]].to_dict("records"):
        best, most = truth.best(row["latent"])
        meant = meanings(row["top_label_kind"], row["top_label_level"], row["top_label"])
        own = truth.of_name(row["latent"], meant)
        rows.append(
            {
                "latent": row["latent"],
                "kind": row["top_label_kind"],
                "level": row["top_label_level"],
                "label": row["top_label"],
                "correlation": own,
                "best": best,
                "best_correlation": most,
                "right": own >= CLOSE * most,
            }
        )
    return pd.DataFrame(
        rows, columns=["latent", "kind", "level", "label", "correlation", "best", "best_correlation", "right"]
    )


def figures(judged: pd.DataFrame) -> pd.DataFrame:
    """Names, right ones and precision by kind and in all."""
    by_kind = judged.groupby("kind")["right"].agg(["size", "sum"]).astype(int)
    by_kind.loc["all"] = [len(judged), int(judged["right"].sum())]
    by_kind["precision"] = by_kind["sum"] / by_kind["size"].clip(lower=1)
    return by_kind.rename(columns={"size": "names", "sum": "right"})


def followers(truth: Truth) -> set[int]:
    """Latents that follow some concept."""
    return set(np.flatnonzero((truth.auroc >= FOLLOWS).any(axis=1)).tolist())


def recall(truth: Truth, judged: pd.DataFrame) -> pd.DataFrame:
    """Of the concepts that some latent follows: how many a right name means, and how many it means or tells best.

    A group is what stands before the colon of a concept's name; concepts of things and places themselves have none.
    """
    followed = (truth.auroc >= FOLLOWS).any(axis=0)
    right = judged[judged["right"]]
    meant = {
        concept
        for row in right.to_dict("records")
        for concept in meanings(row["kind"], row["level"], row["label"])
        if concept in truth.concepts
    }
    best = set(right["best"])
    table = pd.DataFrame({"concept": truth.concepts, "followed": followed})
    table = table[table["followed"]].assign(
        group=lambda each: each["concept"].where(each["concept"].str.contains(": "), "(itself)").str.split(": ").str[0],
        meant=lambda each: each["concept"].isin(meant),
        named=lambda each: each["concept"].isin(meant | best),
    )
    by_group = table.groupby("group")[["followed", "meant", "named"]].sum().astype(int)
    by_group.loc["all"] = by_group.sum()
    return by_group


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> None:
    """Print figures by kind, recall, and the wrong names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--sae", default=None)
    parser.add_argument("--wrong", action="store_true", help="list the wrong names")
    arguments = parser.parse_args()
    sae = arguments.sae or next(iter(sorted(path.name for path in (arguments.run / "features").iterdir())))
    truth = read_truth(arguments.run, sae)
    catalogue = read_table(arguments.run / "features" / sae / "catalogue.parquet")
    judged = judge_names(truth, catalogue)
    _say(f"{len(truth.concepts)} rendered concepts")
    _say(figures(judged).round(3).to_string())
    following, named = followers(truth), set(judged["latent"])
    right = set(judged["latent"][judged["right"]])
    _say(f"{len(following)} latents follow a concept: {len(following & named)} named, {len(following & right)} rightly")
    _say("\nconcepts that a latent follows, those that a right name means, and those that it means or tells best\n")
    _say(recall(truth, judged).to_string())
    if arguments.wrong:
        _say(judged[~judged["right"]].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
