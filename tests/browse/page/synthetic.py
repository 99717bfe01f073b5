"""A made-up run as the page reads it: shards of any size, and real clips of a square whose place is known.

Nothing here is computed from a model; the page's tests need known numbers, not true ones. `make_site` writes a
folder with the page's files that opens from file://, and that any static server can serve.
"""

import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np

import browse
from tests.browse.page.shard_writer import Column, file_id, rows, write_shard

PAGE = Path(browse.__file__).parent / "page"
SAE = "resid_2-batchtopk-1024-k16"
HEIGHT, WIDTH, FPS, N_FRAMES = 240, 288, 30, 90
N_T, N_ROW, N_COL = 8, 8, 8
SIDE = 60
"""Pixels of the square's side."""
SUBJECTS = ("red object", "lamp turned on", "ball", "put something behind something")
KINDS = ("object", "action", "sound", "sight")


def make_site(folder: Path, *, n_latents: int = 300, n_labels: int = 12, labels: list[str] | None = None) -> Path:
    """Write the page, its shards and three clips; return the folder."""
    copy_page(folder)
    names = labels or [f"label {i}: something that is going on" for i in range(n_labels)]
    saes = [about(SAE, n_latents, baseline=f"{SAE}~baseline"), about(f"{SAE}~baseline", n_latents, baseline=None)]
    write_shard(folder, "run", {}, run_meta(saes, n_videos=3))
    for seed, sae in enumerate(saes):
        write_latents(folder, sae["name"], n_latents, names, seed)
    clips = [write_clip(folder, f"video_{i}") for i in range(3)]
    write_videos(folder, clips, names)
    for sae in saes:
        for first in range(0, min(n_latents, 384), 128):
            numbers = range(first, min(first + 128, n_latents))
            write_shard(
                folder, f"{sae['name']}/latent/{first // 128}", rows([latent_object(n, names) for n in numbers])
            )
    write_shard(folder, "tasks", rows([task_object(i, names) for i in range(3)]))
    write_blind(folder)
    write_shard(folder, f"{SAE}/debt/{file_id(names[0])}", rows([debt_object(n, names[0]) for n in (0, 5)]))
    return folder


def copy_page(folder: Path) -> None:
    """index.html at the root, everything else of the page in `page/`."""
    shutil.copytree(PAGE, folder / "page", dirs_exist_ok=True)
    (folder / "page" / "index.html").replace(folder / "index.html")


def about(name: str, n_latents: int, *, baseline: str | None) -> dict[str, Any]:
    return {
        "name": name, "site": "resid/2", "d_in": 128, "d_sae": n_latents, "architecture": "batchtopk", "k": 16,
        "n_latents": n_latents, "has_effects": True, "has_annotations": True, "baseline": baseline, "features": True,
    }  # fmt: skip


def run_meta(saes: list[dict[str, Any]], *, n_videos: int) -> dict[str, Any]:
    stages = [{"stage": stage, "state": "finished"} for stage in ("collect", "train", "features", "steer")]
    return {
        "name": "made-up", "saes": saes, "model": "tiny", "note": None, "stages": stages, "has_videos": True,
        "has_media": True, "n_videos": n_videos, "version": "0.1.0", "served": False,
    }  # fmt: skip


COLUMNS = {
    "firing_rate": ("Firing rate", "activity", "number"),
    "n_videos_active": ("Videos", "activity", "number"),
    "max_activation": ("Largest activation", "activity", "number"),
    "mean_active": ("Mean activation", "activity", "number"),
    "is_dead": ("Dead", "activity", "flag"),
    "top_label": ("Label", "label", "choice"),
    "top_label_kind": ("Kind", "label", "choice"),
    "top_auroc": ("AUROC", "association", "number"),
    "top_within_video_auroc": ("Within video", "association", "number"),
    "top_q_value": ("q", "association", "number"),
    "explained_by_place_time": ("Place and time", "association", "number"),
    "effect": ("Effect", "effect", "number"),
    "effect_q": ("q of the effect", "effect", "number"),
    "effect_subject": ("Subject", "effect", "choice"),
    "effect_method": ("Method", "effect", "choice"),
    "map_x": ("Decoder map x", "map", "number"),
    "map_y": ("Decoder map y", "map", "number"),
}


def write_latents(folder: Path, sae: str, n: int, labels: list[str], seed: int) -> Path:
    """The table of latents; row i is latent i, and `effect` is a permutation of −1 … 1 that is known by `effects`."""
    draw = np.random.default_rng(seed)
    rate = 10 ** draw.uniform(-5, -0.5, n)
    dead = draw.random(n) < 0.05
    labelled = draw.random(n) < 0.6
    label = [labels[i] if has else None for i, has in zip(draw.integers(0, len(labels), n), labelled, strict=True)]
    kind = {text: KINDS[i % len(KINDS)] for i, text in enumerate(labels)}
    columns = {
        "latent": Column(type="i4", values=np.arange(n)),
        "firing_rate": Column(type="f4", values=np.where(dead, 0, rate)),
        "n_videos_active": Column(type="i4", values=np.where(dead, 0, draw.integers(1, 150, n))),
        "max_activation": Column(type="f4", values=np.where(dead, np.nan, draw.gamma(2, 1, n))),
        "mean_active": Column(type="q2", values=np.where(dead, np.nan, draw.gamma(2, 0.5, n))),
        "is_dead": Column(type="u1", values=dead),
        "top_label": Column(type="dict", values=label),
        "top_label_kind": Column(type="dict", values=[text and kind[text] for text in label]),
        "top_auroc": Column(type="f4", values=np.where(labelled, 0.5 + 0.5 * draw.beta(2, 3, n), np.nan)),
        "top_within_video_auroc": Column(type="f4", values=np.where(labelled, 0.5 + 0.5 * draw.beta(2, 4, n), np.nan)),
        "top_q_value": Column(type="f4", values=np.where(labelled, draw.beta(0.3, 2, n), np.nan)),
        "explained_by_place_time": Column(type="q2", values=draw.beta(1, 6, n)),
        "effect": Column(type="f4", values=effects(n, seed)),
        "effect_q": Column(type="f4", values=draw.beta(0.3, 2, n)),
        "effect_subject": Column(type="dict", values=[SUBJECTS[i] for i in draw.integers(0, len(SUBJECTS), n)]),
        "effect_method": Column(type="dict", values=[("exact", "gradient")[i] for i in draw.integers(0, 2, n)]),
        "map_x": Column(type="q2", values=draw.normal(0, 1, n)),
        "map_y": Column(type="q2", values=draw.normal(0, 1, n)),
        "thumb": Column(type="str", values=[f"media/stills/video_{i % 3}/0.jpg" for i in range(n)]),
    }
    about_columns = [
        {"name": name, "title": title, "description": f"{title} of a made-up latent.", "group": group, "unit": "",
         "kind": sort}
        for name, (title, group, sort) in COLUMNS.items()
    ]  # fmt: skip
    counts = [{"label": text, "kind": kind[text], "n_latents": label.count(text)} for text in labels]
    meta = {"latents_per_shard": 128, "columns": about_columns, "subjects": list(SUBJECTS), "labels": counts}
    return write_shard(folder, f"{sae}/latents", columns, meta)


def effects(n: int, seed: int = 0) -> np.ndarray:
    """Effects [latent], all different."""
    return np.random.default_rng(seed + 100).permutation(n) / max(n - 1, 1) * 2 - 1


def square_box(time_s: float) -> tuple[float, float, float, float]:
    """Box (normalised) of the red square in the frame that is shown at a time: it moves 1 px to the right per frame."""
    frame = min(int(time_s * FPS + 1e-6), N_FRAMES - 1)
    x, y = 40 + frame, 80
    return x / WIDTH, y / HEIGHT, (x + SIDE) / WIDTH, (y + SIDE) / HEIGHT


def write_clip(folder: Path, name: str) -> str:
    """An H.264 clip of a red square on grey, and the stills of its first frame of each step."""
    path = folder / "media" / "clips" / f"{name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    stills = folder / "media" / "stills" / name
    stills.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "12", "g": "15", "profile": "baseline"}
        for i in range(N_FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), 150, np.uint8)
            x1, y1, x2, y2 = square_box(i / FPS)
            picture[round(y1 * HEIGHT) : round(y2 * HEIGHT), round(x1 * WIDTH) : round(x2 * WIDTH)] = (215, 30, 30)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            container.mux(stream.encode(frame))
            if i % (N_FRAMES // N_T) == 0:
                frame.to_image().save(stills / f"{i // (N_FRAMES // N_T)}.jpg", quality=90)
        container.mux(stream.encode(None))
    return name


def spans() -> list[list[float]]:
    return [[i * 3 / N_T, (i + 1) * 3 / N_T] for i in range(N_T)]


def moment(group: str, rank: int, video: str, t: int, activation: float, mass: float) -> dict[str, Any]:
    """A moment on the square: its heat is the four patches in the square's middle."""
    x1, y1, x2, y2 = square_box(t * 3 / N_T)
    row, col = int((y1 + y2) / 2 * N_ROW), int((x1 + x2) / 2 * N_COL)
    tokens = [r * N_COL + c for r in (row - 1, row) for c in (col - 1, col)]
    steps = [t, min(t + 1, N_T - 1)]
    return {
        "group": group, "rank": rank, "video": video, "split": "train", "t0": steps[0], "t1": steps[1],
        "start_s": spans()[steps[0]][0], "stop_s": spans()[steps[1]][1], "activation": activation,
        "mass_share": mass, "n_tokens": 8,
        "peak": {"t": t, "row": row, "col": col, "box": [col / 8, row / 8, (col + 1) / 8, (row + 1) / 8]},
        "heat": {"t": [s for s in steps for _ in tokens], "token": tokens * 2, "value": [90, 140, 180, 255] * 2},
        "per_frame": [activation * max(0, 1 - abs(i - t) / 3) for i in range(N_T)],
        "media": f"media/clips/{video}.mp4", "still": f"media/stills/{video}/{t}.jpg",
    }  # fmt: skip


def latent_object(number: int, labels: list[str]) -> dict[str, Any]:
    groups = ["top", "q5", "q4", "q3", "q2", "q1", "random"]
    shares = [0.18, 0.31, 0.22, 0.14, 0.09, 0.06, 0.0]
    moments = [
        moment(group, rank, f"video_{rank % 3}", (rank + g) % N_T, 3.0 / (g + 1) - rank / 20, shares[g] / 4)
        for g, group in enumerate(groups) for rank in range(6 if group == "top" else 4)
    ]  # fmt: skip
    associations = [
        {"label": labels[i % len(labels)], "kind": KINDS[i % 4], "level": "token", "auroc": 0.93 - i / 12,
         "low": 0.88 - i / 12, "high": 0.96 - i / 12, "within": 0.9 - i / 12, "within_low": 0.82 - i / 12,
         "within_high": 0.94 - i / 12, "q": 0.001 * 4**i, "n_videos": 60 - i, "n_positive": 812, "holds": i < 2,
         "is_name": i == 0, "runner_up": i == 1, "control_p95": 0.63, "baseline_p95": 0.7}
        for i in range(5)
    ]  # fmt: skip
    effects = [
        {"subject": subject, "scope": "all", "method": "exact", "n_items": 40, "n_videos": 31,
         "delta_margin": -0.6 + i / 4, "low": -0.8 + i / 4, "high": -0.4 + i / 4,
         "delta_expected_count": -0.21 + i / 10,
         "q": 0.004 * 5**i, "other": -0.03, "noncounting": 0.01, "train": train}
        for i, subject in enumerate(SUBJECTS) for train in (True, False)
    ]  # fmt: skip
    doses = [
        {"operation": "scale", "strength": s, "delta_margin": -0.3 * s * s / 4, "delta_expected_count": -0.1 * s,
         "control_low": -0.05 - s / 60, "control_high": 0.06 + s / 60, "low": -0.3 * s * s / 4 - 0.05 * s,
         "high": -0.3 * s * s / 4 + 0.05 * s}
        for s in (0, 0.5, 1, 2, 4)
    ]  # fmt: skip
    return {
        "latent": number, "max_activation": 3.0, "moments": moments,
        "groups": [{"group": g, "mass_share": s, "n_tokens": int(900 * s) + 8}
                   for g, s in zip(groups, shares, strict=True)],
        "histogram": {"edges": [i / 10 for i in range(31)], "counts": [int(4000 / (i + 1) ** 1.4) for i in range(30)]},
        "place": [float(np.exp(-((r - 3.5) ** 2 + (c - 2.5) ** 2) / 6)) for r in range(N_ROW) for c in range(N_COL)],
        "time": [0.2, 0.3, 0.5, 0.8, 1.0, 0.9, 0.5, 0.3], "associations": associations,
        "neighbours": {"decoder": [{"latent": (number + 7 * i) % 300, "cosine": 0.9 - i / 8} for i in range(1, 7)],
                       "cofiring": [{"latent": (number + 11 * i) % 300, "jaccard": 0.5 / i, "n": 400 // i}
                                    for i in range(1, 7)]},
        "tokens": {"available": True, "why": None, "random_top": [1.9, 2.6],
                   "top": [{"token": f" red{i}", "logit": 4.1 - i / 3} for i in range(8)],
                   "bottom": [{"token": f"blue{i}", "logit": -3.9 + i / 3} for i in range(8)]},
        "effects": effects, "doses": doses,
        "items": [{"item": f"video_{i % 3}-q{i % 2}", "video": f"video_{i % 3}",
                   "question": "How many red objects are there?", "delta_margin": -1.2 + i / 10,
                   "delta_expected_count": -0.4 + i / 30, "held_out": i % 2 == 0} for i in range(12)],
        "claims": [{"text": "ablate, red object: specific", "rule": "q < 0.05 on held-out videos"}],
    }  # fmt: skip


def video_meta(name: str, labels: list[str]) -> dict[str, Any]:
    boxes = [[c / N_COL, r / N_ROW, (c + 1) / N_COL, (r + 1) / N_ROW] for r in range(N_ROW) for c in range(N_COL)]
    steps = [i * N_FRAMES // N_T for i in range(N_T)]
    questions = [
        {"item": f"{name}-q{i}", "question": "How many red objects are there?", "options": ["one", "two", "three"],
         "answer": 0, "subject": "red object", "counting": True, "predicted": i, "margin": 1.4 - 2 * i,
         "expected_count": 1.3, "edited": [{"target": "latent 0", "operation": "ablate", "delta_margin": -1.3,
                                           "delta_expected_count": -0.4}]}
        for i in range(2)
    ]  # fmt: skip
    track = [[i / FPS, *square_box(i / FPS), 0] for i in range(N_FRAMES)]
    return {
        "id": name, "clip": f"media/clips/{name}.mp4", "n_latents": 40,
        "grid": {"n_t": N_T, "n_row": N_ROW, "n_col": N_COL, "patch_boxes": boxes, "spans_s": spans(),
                 "frame_ids": [[s] for s in steps], "frame_s": [s / FPS for s in steps]},
        "tracks": [{"id": 3, "label": labels[0], "boxes": track}],
        "actions": [{"label": labels[1 % len(labels)], "start_s": 0.4, "stop_s": 1.6, "parent": None},
                    {"label": labels[2 % len(labels)], "start_s": 1.2, "stop_s": 2.7, "parent": None}],
        "sounds": [{"label": "object : hit", "start_s": 1.5, "stop_s": 1.9}], "questions": questions,
    }  # fmt: skip


def write_videos(folder: Path, names: list[str], labels: list[str]) -> None:
    n = len(names)
    numbers = {"n_frames_model": N_T, "duration_s": 3.0, "width": WIDTH, "height": HEIGHT, "n_tracks": 1,
               "n_actions": 2, "n_questions": 2, "has_file": 1}  # fmt: skip
    columns = {name: Column(type="f4", values=[value] * n) for name, value in numbers.items()}
    ids = {"id": Column(type="str", values=names), "split": Column(type="dict", values=["train"] * n)}
    write_shard(folder, "videos", ids | columns)
    for name in names:
        write_shard(folder, f"video/{file_id(name)}", {}, video_meta(name, labels))
        latents = [(number, latent_object(number, labels)["moments"][0]["heat"]) for number in range(40)]
        write_shard(folder, f"{SAE}/video/{file_id(name)}", {
            "latent": Column(type="i4", values=[number for number, _ in latents]),
            "peak": Column(type="f4", values=[3 - i / 20 for i in range(40)]),
            "ratio": Column(type="f4", values=[9 - i / 5 for i in range(40)]),
            "n_tokens": Column(type="i4", values=[8] * 40),
            "label": Column(type="str", values=[labels[i % len(labels)] for i in range(40)]),
            "json": Column(type="json", values=[{"heat": heat} for _, heat in latents]),
        })  # fmt: skip


def task_object(number: int, labels: list[str]) -> dict[str, Any]:
    items = [{"item": f"video_{i % 3}-q0", "video": f"video_{i % 3}", "answer": "one",
              "predicted": "one" if i % 3 else "two", "right": 1.0 if i % 3 else 0.0, "margin": 1.2 - i % 3}
             for i in range(9)]  # fmt: skip
    latents = [{"sae": SAE, "latent": i, "claim": "specific", "rule": "q < 0.05", "delta_margin": -0.7 + i / 5,
                "low": -0.9 + i / 5, "high": -0.5 + i / 5} for i in range(3)]  # fmt: skip
    return {
        "task": f"How many {labels[number % len(labels)]} are there?", "subject": SUBJECTS[number], "n_videos": 9,
        "accuracy": 0.67, "accuracy_low": 0.5, "accuracy_high": 0.8,
        "baselines": {"chance": 0.333, "question_only": 0.41, "answer_frequency": 0.44}, "items": items,
        "latents": latents,
    }  # fmt: skip


def write_blind(folder: Path, n_trials: int = 6) -> None:
    """Trials whose answer is 0 for even trials and 1 for odd; every other pair of trials is of the baseline."""
    trials, key = [], []
    for i in range(n_trials):
        positive = [moment("top", r, f"video_{r % 3}", r, 3.0, 0.1) for r in range(4)]
        negative = [moment("random", r, f"video_{r % 3}", 7 - r, 0.0, 0.0) for r in range(4)]
        query = [moment("top", 5, "video_1", 2, 2.5, 0.1), moment("random", 5, "video_2", 6, 0.0, 0.0)]
        trials.append({"id": f"t{i}", "reference_positive": positive, "reference_negative": negative,
                       "query": query if i % 2 == 0 else query[::-1], "key": "0" * 64})  # fmt: skip
        source = "trained" if i // 2 % 2 == 0 else "baseline"
        key.append({"id": f"t{i}", "answer": i % 2, "source": source, "sae": SAE, "latent": i})
    write_shard(folder, f"{SAE}/blind", {}, {"trials": trials})
    write_shard(folder, f"{SAE}/blind-key", {}, {"salt": "salt", "trials": key})


def debt_object(latent: int, label: str) -> dict[str, Any]:
    moments = [moment("outside", i, f"video_{i % 3}", i % N_T, 3 - i / 10, 0.01) for i in range(5)]
    return {"latent": latent, "label": label, "moments": moments, "inside": 90, "outside": 10}
