"""The overview and the pages of latents, against dense references from the codes and the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from browse.gathering.latents.catalogue import principal_plane
from browse.gathering.latents.neighbours import N_NEIGHBOURS, unit_rows
from browse.gathering.library import Library
from browse.gathering.opened import OpenedRun, OpenedSae
from browse.gathering.profiles import N_TIME_BINS, heat
from browse.shards import encode
from collect.artefact.folder import write_table
from collect.process.provenance import installed_versions
from steer.tables import EFFECTS, SWEEP
from tests.small_run import D_SAE, SAE_NAME
from tests.steer.effect_rows import row
from tests.steer.finished_run import BALL, BALL_LABEL, CUP, UNLABELLED


def test_every_named_shard_can_be_made(library: Library) -> None:
    names = list(library.names())
    assert len(set(names)) == len(names)
    for name in names:
        shard = library.shard(name)
        assert shard is not None, name
        assert "error" not in shard.meta
        assert encode(name, shard)


def test_the_run_says_what_there_is(library: Library, finished: Path) -> None:
    shard = library.shard("run")
    assert shard is not None
    meta = shard.meta
    assert meta["name"] == "my <run>"
    assert (meta["n_videos"], meta["has_videos"], meta["has_annotations"]) == (8, True, True)
    assert meta["version"] == installed_versions()["video-sae"]
    assert {stage["stage"]: stage["state"] for stage in meta["stages"]} == dict.fromkeys(
        ("profile", "collect", "train", "features", "steer"), "finished"
    )
    (sae,) = meta["saes"]
    assert (sae["features"], sae["n_latents"], sae["has_effects"], sae["baseline"]) == (True, D_SAE, True, None)
    assert str(finished.parent) not in json.dumps(meta)  # where the run lies is nobody else's business


def test_the_overview_has_a_row_per_latent_with_its_largest_effect(library: Library, sae: OpenedSae) -> None:
    shard = library.shard(f"{SAE_NAME}/latents")
    assert shard is not None
    columns = {name: column.decoded() for name, column in shard.columns.items()}
    assert columns["latent"] == list(range(D_SAE))
    assert columns["top_label"][BALL] == BALL_LABEL
    assert columns["labelled"] == [int(latent in (BALL, CUP)) for latent in range(D_SAE)]
    assert columns["top_auroc"][CUP] == pytest.approx(0.91, abs=1e-5)
    effects = sae.effects
    assert effects is not None
    rows = effects.tables["latent_subjects"]
    rows = rows[(rows["scope"] == "subject") & (rows["latent"] == BALL)]
    largest = rows.loc[rows["delta_margin"].abs().idxmax()]
    assert columns["effect"][BALL] == pytest.approx(largest["delta_margin"], abs=1e-3)
    assert columns["effect_subject"][BALL] == largest["name"]
    claims = effects.tables["claims"].set_index(["target", "operation"])
    assert columns["effect_held_out"][UNLABELLED] == pytest.approx(
        claims.loc[(str(UNLABELLED), "ablate"), "delta_margin"], abs=1e-3
    )
    described = {column["name"] for column in shard.meta["columns"]}
    assert described == set(columns)
    assert {label["label"]: label["n_named"] for label in shard.meta["labels"]} == {BALL_LABEL: 1, "cup": 1}


def test_the_map_is_the_plane_of_largest_variance() -> None:
    rng = np.random.default_rng(0)
    decoder = rng.standard_normal((60, 7)).astype(np.float32) * np.array([5, 3, 1, 1, 1, 0.5, 0.2], dtype=np.float32)
    unit = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    _, values, _ = np.linalg.svd(centred, full_matrices=False)
    plane = principal_plane(decoder)
    np.testing.assert_allclose(np.linalg.norm(plane, axis=0), values[:2], rtol=1e-4)
    assert principal_plane(np.ones((3, 1), dtype=np.float32)).shape == (3, 2)


def test_moments_heat_and_timelines_are_the_activations(
    pages: list[dict[str, Any]], sae: OpenedSae, dense: np.ndarray
) -> None:
    n_checked = 0
    for page in pages:
        own = dense[:, page["latent"]]
        assert page["max_activation"] == pytest.approx(own.max(), rel=1e-4)
        for moment in page["moments"]:
            record = sae.run.record_of[moment["video"]]
            grid = record.grid
            clip = own[record.row_start : record.row_stop].reshape(grid.n_t, -1)
            np.testing.assert_allclose(moment["per_frame"], clip.max(axis=1), rtol=1e-3)
            drawn = np.zeros_like(clip)
            drawn[moment["heat"]["t"], moment["heat"]["token"]] = moment["heat"]["value"]
            np.testing.assert_allclose(
                drawn, np.where(clip > 0, np.clip(np.rint(255 * clip / own.max()), 1, 255), 0), atol=1
            )
            peak = moment["peak"]
            assert clip[peak["t"]].argmax() == peak["row"] * grid.n_cols + peak["col"]
            np.testing.assert_allclose(peak["box"], grid.box(peak["row"], peak["col"]), rtol=1e-4)
            assert moment["t0"] <= peak["t"] <= moment["t1"]
            assert moment["media"] == f"media/clips/{moment['video']}.mp4"
            n_checked += 1
    assert n_checked > 100


def test_heat_keeps_the_strongest_patches_and_those_of_the_moment_first() -> None:
    rank = np.arange(6)
    value = np.array([9, 8, 7, 1, 2, 3], dtype=np.float32)
    assert heat(rank, value, 2, 9.0, most=3) == {"t": [0, 0, 1], "token": [0, 1, 0], "value": [255, 227, 198]}
    assert heat(rank, value, 2, 9.0, (2, 2), most=3) == {"t": [0, 2, 2], "token": [0, 0, 1], "value": [255, 57, 85]}


def test_histogram_place_and_time(pages: list[dict[str, Any]], sae: OpenedSae, dense: np.ndarray) -> None:
    grids = [video.grid for video in sae.run.videos]
    n_rows, n_cols, n_t = grids[0].n_rows, grids[0].n_cols, grids[0].n_t
    clips = dense.reshape(len(grids), n_t, n_rows, n_cols, D_SAE)
    for page in pages:
        own = clips[..., page["latent"]]
        assert sum(page["histogram"]["counts"]) == (own > 0).sum()
        np.testing.assert_allclose(page["place"], own.mean(axis=(0, 1)), rtol=2e-3, atol=1e-9)
        known = [value for value in page["time"] if value is not None]
        assert len(page["time"]) == N_TIME_BINS
        np.testing.assert_allclose(known, own.mean(axis=(0, 2, 3)), rtol=2e-3, atol=1e-9)


def test_neighbours_are_those_of_all_pairs(pages: list[dict[str, Any]], sae: OpenedSae, dense: np.ndarray) -> None:
    assert sae.decoder is not None
    unit = unit_rows(sae.decoder)
    cosine = unit @ unit.T
    fires = dense > 0
    for page in pages:
        latent = page["latent"]
        line = cosine[latent].copy()
        line[latent] = -2
        found = page["neighbours"]["decoder"]
        assert len(found) == N_NEIGHBOURS
        np.testing.assert_allclose([each["cosine"] for each in found], np.sort(line)[::-1][:N_NEIGHBOURS], rtol=1e-3)
        both = (fires & fires[:, [latent]]).sum(axis=0)
        jaccard = both / np.maximum((fires | fires[:, [latent]]).sum(axis=0), 1)
        jaccard[latent] = 0
        for each in page["neighbours"]["cofiring"]:
            assert each["n"] == both[each["latent"]]
            assert each["jaccard"] == pytest.approx(jaccard[each["latent"]], rel=1e-3)
        best = np.sort(jaccard)[::-1][: len(page["neighbours"]["cofiring"])]
        np.testing.assert_allclose([each["jaccard"] for each in page["neighbours"]["cofiring"]], best, rtol=1e-3)


def test_effects_doses_and_claims_are_the_tables_rows(pages: list[dict[str, Any]], sae: OpenedSae) -> None:
    effects = sae.effects
    assert effects is not None
    page = pages[BALL]
    held = [effect for effect in page["effects"] if not effect["train"]]
    table = effects.tables["target_subjects"]
    table = table[(table["target"] == str(BALL)) & (table["operation"] == "ablate")]
    assert {effect["subject"]: effect["delta_margin"] for effect in held} == {
        subject: pytest.approx(delta) for subject, delta in zip(table["subject"], table["delta_margin"], strict=True)
    }
    assert [(dose["operation"], dose["strength"], dose["delta_margin"]) for dose in page["doses"]] == [
        ("ablate", 0.0, -0.5),
        ("scale", 2.0, 0.4),
    ]
    limit = effects.tables["summary"].set_index(["target", "operation"]).loc[(str(BALL), "ablate"), "control_max"]
    assert page["doses"][0]["control_high"] == pytest.approx(limit)
    assert page["doses"][0]["control_low"] == pytest.approx(-limit)
    claims = effects.tables["claims"]
    assert [claim["claim"] for claim in page["claims"]] == claims.loc[claims["target"] == str(BALL), "claim"].tolist()
    assert pages[0]["claims"] == []


def test_the_largest_effects_on_single_questions_are_listed(copy: Path) -> None:
    folder = copy / "steer" / SAE_NAME
    known = {"attribution": 0.0, "reach": 0.0}
    swept = [
        row(
            SWEEP,
            **known,
            latent=BALL,
            item=f"video_{video}/0",
            video_id=f"video_{video}",
            method="exact",
            delta_margin=-video,
        )
        for video in range(4)
    ]
    swept.append(
        row(SWEEP, **known, latent=BALL, item="video_0/1", video_id="video_0", method="gradient", delta_margin=None)
    )
    edited = [
        row(EFFECTS, target=str(BALL), operation=operation, item="video_7/0", video_id="video_7", delta_margin=delta)
        for operation, delta in (("ablate", 2.5), ("scale:2", 9.0))
    ]
    write_table(folder / "sweep.parquet", pd.DataFrame(swept, columns=SWEEP.names), SWEEP)
    write_table(folder / "effects.parquet", pd.DataFrame(edited, columns=EFFECTS.names), EFFECTS)
    library = Library(OpenedRun(copy))
    shard = library.shard(f"{SAE_NAME}/latent/0")
    assert shard is not None
    items = shard.columns["json"].values[BALL]["items"]
    assert [(item["item"], item["delta_margin"], item["held_out"]) for item in items] == [
        ("video_3/0", -3.0, False),
        ("video_7/0", 2.5, True),
        ("video_2/0", -2.0, False),
        ("video_1/0", -1.0, False),
        ("video_0/0", 0.0, False),
    ]
    video = library.shard("video/video_7")
    assert video is not None
    question = next(each for each in video.meta["questions"] if each["item"] == "video_7/0")
    assert [(edit["operation"], edit["delta_margin"]) for edit in question["edited"]] == [
        ("scale:2", 9.0),
        ("ablate", 2.5),
    ]
    assert question["right"] == pytest.approx(1 / 3, rel=1e-4)
