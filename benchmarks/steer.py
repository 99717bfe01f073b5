"""Exact effects of latents over the script that people write, and how much of them the screens find.

On the demo (its model, videos and SAE, made anew; the site is resid/2):

    effects_per_s            exact effects of ablations, latents x items, per second
    exact_speedup            the same over the script that people write: a forward hook, and one whole pass of the model
                             per latent and item, its three orders of options in one batch
    whole_pass_speedup       over whole passes that are resumed at the site with all questions packed, as
                             `ask.cases.edited_logits` runs them: what going on from the known prefix alone gives
    largest_difference       between our logits and those of the script
    direct_per_s             direct effects, latents x items, per second
    direct_over_exact        seconds of a direct effect over those of an exact one
    direct_over_fwd_bwd      seconds of the direct screen of a video (the gradient's, which chooses the latents, and the
                             direct effects of these) over those of one forward and one backward pass per question,
                             which the gradient's screen takes
    n_direct                 latents that it runs, of `n_active` that fire; `all_direct_over_fwd_bwd` is for all of them
                             on all questions, from `direct_per_s`
    masked_over_fwd_bwd      the same for 400 masks
    recall20_SCREEN          share of the 20 largest exact effects per subject that are among the screen's own 20, mean
                             over four subjects with two train videos each
    large_correlation_SCREEN rank correlation over the effects above 0.1 nats, all four subjects together
    peak_rss_mib             highest memory during the exact runs of one video

On a random PerceptionLM of 80 M parameters, N layers and a site after layer L:

    mid_exact_speedup        as `exact_speedup`, at half depth
    mid_bar                  N / (N - L) x 2, what it should exceed
    mid_effects_per_s        as `effects_per_s`
    growth_latents           exponent of the time of exact runs with four times the latents; 1 is linear
    growth_tokens            the same with four times the frames
    growth_layers            the same with three times the layers behind the site

Extrapolated, not measured:

    plm1b_exact_hours        all active latents of 1,000 videos exactly on one GPU, for PerceptionLM-1B (16 layers, site
                             resid/7, 32 frames of 144 tokens, six packed questions of 60 tokens) with 32,768 latents of
                             which 10,000 fire in a video, at 4e14 operations a second, counted as in
                             `steer.screens.cost`; the same for
    plm1b_direct_hours       direct effects of those that lead
    plm1b_masked_hours       400 masks

Random latents of the mid-size model fire on eight tokens each. Sides run in turn in one process.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from ask.cases import Case, build_case, edited_logits, embed_items, residuals_at
from ask.packing import Asked
from ask.questions import Item
from benchmarks.collect import MID
from benchmarks.demo_passes import BATCH, demo_passes
from benchmarks.harness import Metrics, Options, PeakMemory, alternate, median_ratio, medians, run_benchmark, seconds
from benchmarks.hook_script import hook_script
from collect.video.decode import Clip, decode_clip
from collect.vlm import VideoVlm, load_vlm
from demo.vlm.architecture import SIZES, build_model, build_processor
from demo.world.scene import SAMPLES
from steer.codes import CodedCases, VideoCodes
from steer.screens.by_video import estimates
from steer.screens.cost import Shape
from steer.screens.estimates import leading, n_leaders, with_estimates
from steer.screens.gradient import attribution, margin_gradients
from steer.screens.masked import N_MASKS
from steer.screens.passes import Passes, ablations
from steer.screens.prefix import KnownPrefix, SparseChange
from steer.sweep import screened_rows

SUBJECTS = ("lamp turn on", "cover", "lift", "swap two cups")
LARGE, TOP = 0.1, 20
OPERATIONS_PER_S = 4e14


def measure(options: Options) -> Metrics:
    """Measure the demo and the mid-size model in a temporary folder."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="video-sae-bench-") as name:
        metrics = {**_demo(Path(name), options), **_mid(Path(name) / "mid", options)}
    plm1b = Shape(n_prefix=4608, n_text=360, n_answers=6, n_layers=8, n_weights=60_817_408, d_model=2048)
    n_edits = {
        "exact": 10_000 * plm1b.whole,
        "direct": n_leaders(10_000) * plm1b.direct,
        "masked": N_MASKS * plm1b.whole,
    }
    hours = {f"plm1b_{name}_hours": 1000 * each / OPERATIONS_PER_S / 3600 for name, each in n_edits.items()}
    return {**metrics, **hours}


def _demo(folder: Path, options: Options) -> dict[str, float]:
    passes = demo_passes(folder, quick=options.quick)
    editor, cases = passes.editor, passes.cases
    chosen = _videos(cases, 1 if options.quick else 2)
    video_id = next(iter(chosen))
    case, codes = cases[video_id]
    latents = _active(codes)
    edits = ablations(editor, codes, latents)
    few = edits[:: max(1, len(edits) // (4 if options.quick else 24))]
    model = editor.model
    video = cases.cases.annotated(video_id)
    assert video.path is not None
    clip = decode_clip(video.path, video_id, SAMPLES, video.cut_frame)
    assert passes.shows_prefix(video_id)
    found: dict[str, Tensor] = {}

    def script() -> None:
        found["script"] = hook_script(model, clip, case, few)

    def ours() -> None:
        found["ours"] = passes.total(video_id, few).delta_margin

    times = alternate(
        {
            "ours": ours,
            "whole": lambda: edited_logits(
                model, case, [each.dense(len(case.sequences.visual_positions)) for each in few], BATCH
            ),
            "direct": lambda: passes.direct(video_id, few),
            "script": script,
        },
        rounds=1 if options.quick else 3,
    )
    logits = torch.cat([KnownPrefix(model, case).total([each])[0] for each in few])
    n_effects = len(few) * len(case.items)
    gradient = seconds(lambda: margin_gradients(model, case, [[place] for place in range(len(case.items))]))
    typical = medians(times)
    with PeakMemory() as memory:
        passes.total(video_id, edits)
    masked = seconds(lambda: estimates(passes, "masked", video_id, latents, 0))
    led = _direct(passes, video_id, _screened(passes, video_id))
    direct = seconds(lambda: _direct(passes, video_id, _screened(passes, video_id)))
    return {
        "effects_per_s": n_effects / typical["ours"],
        "exact_speedup": median_ratio(times["script"], times["ours"]),
        "whole_pass_speedup": median_ratio(times["whole"], times["ours"]),
        "largest_difference": float((logits - found["script"]).abs().max()),
        "direct_per_s": n_effects / typical["direct"],
        "direct_over_exact": median_ratio(times["direct"], times["ours"]),
        "direct_over_fwd_bwd": direct / gradient,
        "n_direct": float(led["latent"].nunique()),
        "n_active": float(len(latents)),
        "all_direct_over_fwd_bwd": typical["direct"] / len(few) * len(edits) / gradient,
        "masked_over_fwd_bwd": masked / gradient,
        "peak_rss_mib": memory.mib,
        **_recalls(passes, chosen),
    }


def _videos(cases: CodedCases, n: int) -> dict[str, list[str]]:
    """Up to `n` train videos of each subject, and which of the subjects they stand for."""
    chosen: dict[str, list[str]] = {}
    for subject in SUBJECTS:
        own = [
            video_id
            for video_id in cases.cases.videos
            if any(item.subject == subject and not item.held_out for item in cases.cases.items(video_id))
        ]
        for video_id in own[:n]:
            chosen.setdefault(video_id, []).append(subject)
    return chosen


def _recalls(passes: Passes, chosen: dict[str, list[str]]) -> dict[str, float]:
    """What each screen finds of the exact effects per subject, means over its videos."""
    d_sae = passes.editor.sae.d_sae
    n_videos: dict[str, int] = dict.fromkeys(SUBJECTS, 0)
    names = ("exact", "gradient", "direct", "masked")
    sums: dict[str, dict[str, np.ndarray]] = {name: {each: np.zeros(d_sae) for each in SUBJECTS} for name in names}
    for video_id, subjects in chosen.items():
        case, codes = passes.cases[video_id]
        latents = _active(codes)
        rows = _screened(passes, video_id)
        direct = _direct(passes, video_id, rows).rename(columns={"estimate": "direct_delta_margin"})
        rows = with_estimates(rows.merge(direct, on=["latent", "item"], how="left"))
        by_screen = {
            "exact": passes.total(video_id, ablations(passes.editor, codes, latents)).delta_margin,
            "gradient": _values(rows, "attribution", case, latents),
            "direct": _values(rows, "direct_estimate", case, latents),
            "masked": _values(estimates(passes, "masked", video_id, latents, 0), "estimate", case, latents),
        }
        for subject in subjects:
            own = [place for place, item in enumerate(case.items) if item.subject == subject]
            n_videos[subject] += 1
            for name, values in by_screen.items():
                sums[name][subject][latents] += values[:, own].double().mean(dim=1).cpu().numpy()
    asked = [subject for subject in SUBJECTS if n_videos[subject]]
    exact = {subject: sums["exact"][subject] / n_videos[subject] for subject in asked}
    result: dict[str, float] = {}
    for name in names[1:]:
        own = {subject: sums[name][subject] / n_videos[subject] for subject in asked}
        hits = [len(_top(exact[subject]) & _top(own[subject])) / TOP for subject in asked]
        result[f"recall20_{name}"] = float(np.mean(hits))
        both = np.concatenate([exact[subject] for subject in asked]), np.concatenate([own[each] for each in asked])
        large = np.abs(both[0]) > LARGE
        is_known = large.sum() > 2 and np.ptp(both[1][large]) > 0
        result[f"large_correlation_{name}"] = float(spearmanr(both[0][large], both[1][large])[0]) if is_known else 0.0
    return {**result, "n_large": float(sum((np.abs(exact[subject]) > LARGE).sum() for subject in asked))}


def _screened(passes: Passes, video_id: str) -> pd.DataFrame:
    """Rows of one video with what the gradient says."""
    case, codes = passes.cases[video_id]
    gradients = margin_gradients(passes.editor.model, case, [[place] for place in range(len(case.items))])
    sae = passes.editor.sae
    found = [attribution(codes, sae.W_dec, each) for each in gradients if each is not None]
    return screened_rows(case, codes, sae.decoder_norm.float(), found).drop(columns="direct_delta_margin")


def _direct(passes: Passes, video_id: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The direct effects of the latents that lead."""
    return estimates(passes, "direct", video_id, sorted(set(rows.loc[leading(rows), "latent"])), 0)


def _values(rows: pd.DataFrame, column: str, case: Case, latents: Sequence[int]) -> Tensor:
    """A column by latent and item."""
    table = rows.pivot_table(index="latent", columns="item", values=column, dropna=False)
    wanted = table.loc[list(latents), [item.item_id for item in case.items]]
    return torch.from_numpy(wanted.to_numpy(dtype=np.float64, copy=True))


def _top(effects: np.ndarray) -> set[int]:
    return set(np.argsort(-np.abs(effects), kind="stable")[:TOP].tolist())


def _active(codes: VideoCodes) -> list[int]:
    return sorted({int(latent) for latent in codes.latent})


def _mid(folder: Path, options: Options) -> dict[str, float]:
    size = SIZES["tiny"] if options.quick else MID
    build_model(size, seed=0).save_pretrained(folder)
    build_processor(size).save_pretrained(folder)
    vlm = load_vlm(str(folder), dtype="float32")
    n_layers = size.layers
    half = n_layers // 2 - 1
    n_edits = 2 if options.quick else 8
    items = _items()
    sites = {name: f"resid/{layer}" for name, layer in (("half", half), ("few", max(n_layers - 3, 1)), ("many", 0))}
    short, long = _clip(2), _clip(8)
    case = {name: _case(vlm, short, items, site) for name, site in sites.items()}
    longer = _case(vlm, long, items, sites["half"])
    edits = _random_edits(case["half"], n_edits)

    times = alternate(
        {
            "ours": _runner(vlm, sites["half"], case["half"], edits),
            "script": lambda: hook_script(Asked.at(vlm, sites["half"]), short, case["half"], edits),
            "latents": _runner(vlm, sites["half"], case["half"], _random_edits(case["half"], 4 * n_edits)),
            "tokens": _runner(vlm, sites["half"], longer, _random_edits(longer, n_edits)),
            "few": _runner(vlm, sites["few"], case["few"], edits),
            "many": _runner(vlm, sites["many"], case["many"], edits),
        },
        rounds=1 if options.quick else 3,
    )
    layers = [n_layers - 1 - int(sites[name].split("/")[1]) for name in ("few", "many")]
    return {
        "mid_exact_speedup": median_ratio(times["script"], times["ours"]),
        "mid_bar": 2 * n_layers / (n_layers - half - 1),
        "mid_effects_per_s": n_edits * len(items) / medians(times)["ours"],
        "growth_latents": math.log(median_ratio(times["latents"], times["ours"])) / math.log(4),
        "growth_tokens": math.log(median_ratio(times["tokens"], times["ours"])) / math.log(4),
        "growth_layers": math.log(median_ratio(times["many"], times["few"])) / math.log(layers[1] / layers[0]),
    }


def _items() -> tuple[Item, ...]:
    return tuple(
        Item(
            video_id="video",
            question_id=number,
            question=f"how many {what} are on the table",
            options=("one", "two", "three"),
            answer_id=number,
            kind="object counting",
            values=(1.0, 2.0, 3.0),
            held_out=False,
        )
        for number, what in enumerate(("cups", "balls"))
    )


def _clip(n_frames: int) -> Clip:
    frames = np.random.default_rng(0).integers(0, 255, (n_frames, 112, 112, 3), dtype=np.uint8)
    times = np.arange(n_frames, dtype=np.float64)
    return Clip(
        video_id="video",
        path=Path("video.mp4"),
        frames=frames,
        frame_ids=np.arange(n_frames),
        times_s=times,
        frame_rate=1.0,
        n_frames=n_frames,
    )


def _case(vlm: VideoVlm, clip: Clip, items: Sequence[Item], site: str) -> Case:
    prefix = vlm.with_features([vlm.prefix(clip)])[0]
    model = Asked.at(vlm, site)
    return build_case(model, residuals_at(vlm, embed_items(vlm, prefix, items, packed=True), site), items)


def _random_edits(case: Case, n: int) -> list[SparseChange]:
    generator = torch.Generator().manual_seed(0)
    visual = case.sequences.visual
    return [
        SparseChange(
            token=torch.randperm(len(visual), generator=generator)[:8].sort().values.to(visual.device),
            change=torch.randn(8, visual.shape[1], generator=generator).to(visual.device),
        )
        for _ in range(n)
    ]


def _runner(vlm: VideoVlm, site: str, case: Case, edits: Sequence[SparseChange]) -> Callable[[], None]:
    """Runs edits of one video, those that begin late together, as `steer.screens.passes` does."""
    prefix = KnownPrefix(Asked.at(vlm, site), case)
    order = sorted(edits, key=lambda each: -int(each.token[0]))

    def run() -> None:
        for start in range(0, len(order), BATCH):
            prefix.total(order[start : start + BATCH])

    return run


if __name__ == "__main__":
    run_benchmark("steer", measure)
