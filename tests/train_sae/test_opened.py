"""Whether an SAE belongs to a run: what it states is checked, and what it does not state is said."""

import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from collect.artefact.folder import file_hash, write_json
from collect.errors import UserError
from collect.reading import ActivationStore
from tests.train_sae.lens_saes import edit_cfg, save_lens_sae
from tests.train_sae.stores import D_IN, N_PLANTED, SITE, planted_directions, write_run
from train_sae.lens.export import save_sae
from train_sae.opened import OpenedSae, open_sae, split_site
from train_sae.sae import Sae

OTHER = "resid_pre/0"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of one site and of two of the same width."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "one": write_run(folder / "one", n_videos=10),
        "two": write_run(folder / "two", n_videos=10, others=(OTHER,)),
    }


def save(folder: Path, **metadata: Any) -> Path:
    """An SAE of the planted directions, so that it reconstructs SITE and no other site."""
    directions = planted_directions()
    sae = Sae(
        architecture="jumprelu",
        k=2,
        W_enc=torch.linalg.pinv(directions),
        W_dec=directions,
        b_enc=torch.zeros(N_PLANTED),
        b_dec=torch.full((D_IN,), 6.0),
        threshold=torch.full((N_PLANTED,), 1.0),
        metadata=metadata,
    )
    save_sae(folder, sae, torch.full((N_PLANTED,), 0.1))
    return folder


def opened(run: Path, wanted: str | Path | None, *, decoded: bool = False) -> OpenedSae:
    return open_sae(run, ActivationStore.open(run / "activations"), str(wanted) if wanted else None, decoded=decoded)


def test_an_sae_of_this_very_store_needs_no_word(
    runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ActivationStore.open(runs["two"] / "activations")
    folder = save(tmp_path / "own", hook_name=SITE, model_fingerprint="f00d", store_fingerprint=store.fingerprint)
    with caplog.at_level(logging.INFO, "train_sae"):
        assert opened(runs["two"], folder).sae.site == SITE
    assert caplog.text == ""


def test_its_hash_is_that_of_its_weights(runs: dict[str, Path], tmp_path: Path) -> None:
    found = opened(runs["one"], save(tmp_path / "own", hook_name=SITE))
    before = found.hashes()["sae"]
    edit_cfg(tmp_path / "own", metadata={"hook_name": SITE, "note": "more"})
    assert found.hashes()["sae"] == before == file_hash(tmp_path / "own" / "sae_weights.safetensors")


@pytest.mark.parametrize("hook", [None, "", 3])
def test_an_sae_that_states_nothing_is_taken_and_that_is_said(
    hook: object, runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(tmp_path / "foreign", hook_name=hook)
    with caplog.at_level(logging.INFO, "train_sae"):
        found = opened(runs["one"], folder)
    assert found.sae.site == SITE
    assert "does not say which model it was trained on: a-model is assumed" in caplog.text
    assert f"does not say at which site it was trained: {SITE} is assumed" in caplog.text


def test_of_several_sites_it_is_the_one_that_is_reconstructed(
    runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert opened(runs["two"], save(tmp_path / "foreign")).sae.site == SITE
    assert re.search(rf"{SITE} is assumed, which it reconstructs best \(FVU \S+ at {SITE}, FVU \S+ at", caplog.text)


def test_a_site_that_cannot_be_found_out_is_asked_for(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = save_lens_sae(tmp_path / "random", "standard", d_in=D_IN, metadata={})
    with pytest.raises(UserError, match=r"reconstructs none of them clearly best .*write --sae .*random@SITE"):
        opened(runs["two"], folder)
    assert opened(runs["two"], f"{folder}@{OTHER}").sae.site == OTHER
    with pytest.raises(UserError, match=f"does not hold the site resid/9 \\({SITE}, {OTHER}\\)"):
        opened(runs["two"], f"{folder}@resid/9")


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("blocks.2.hook_resid_post", SITE),
        ("model.language_model.layers.2", SITE),
        ("blocks.0.hook_resid_pre", OTHER),
        ("projector", OTHER),
    ],
)
def test_names_of_other_libraries_are_translated(
    hook: str, site: str, runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(tmp_path / "foreign", hook_name=hook, model_name="models/A-Model")
    with caplog.at_level(logging.INFO, "train_sae"):
        assert opened(runs["two"], folder).sae.site == site
    assert f"was trained at {hook}, which is {site}." in caplog.text
    assert "called" not in caplog.text  # the model has the same name, in another folder


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"hook_name": "resid/7"}, r"trained on site resid/7 and .* does not hold it"),
        ({"hook_name": "blocks.7.hook_resid_post"}, r"trained on site blocks.7.hook_resid_post, which is resid/7, and"),
        ({"hook_name": "blocks.2.attn.hook_z"}, r"trained at blocks.2.attn.hook_z, which is no hook site here"),
        ({"hook_name": "\x1b[2J"}, r"trained at \\x1b\[2J, which is no hook site here"),
        (
            {"hook_name": SITE, "model_fingerprint": "beef", "model_name": "b"},
            r"another model \(b\) than .* \(a-model\)",
        ),
    ],
)
def test_what_is_stated_and_does_not_fit_is_refused(
    metadata: dict[str, Any], message: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    folder = save(tmp_path / "foreign", **metadata)
    with pytest.raises(UserError, match=message) as caught:
        opened(runs["two"], folder)
    assert "--sae" in str(caught.value)
    assert not re.search("train an|train one|delete", str(caught.value))


def test_another_width_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    for name, metadata in (("stated", {"hook_name": SITE}), ("unknown", {})):
        folder = save_lens_sae(tmp_path / name, "topk", d_in=D_IN + 1, metadata=metadata)
        with pytest.raises(UserError, match=f"reads {D_IN + 1} dimensions where .* has {D_IN} at {SITE}"):
            opened(runs["one"], folder)


def test_a_site_that_is_asked_for_goes_before_what_is_stated(
    runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(tmp_path / "foreign", hook_name="blocks.2.hook_resid_mid")
    assert opened(runs["two"], f"{folder}@{OTHER}").sae.site == OTHER
    assert f"was trained at blocks.2.hook_resid_mid, and is read at {OTHER} as asked for" in caplog.text


def test_another_name_of_the_model_and_another_store_are_said(
    runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(tmp_path / "foreign", hook_name=SITE, model_name="gpt2-small", store_fingerprint="another")
    with caplog.at_level(logging.INFO, "train_sae"):
        opened(runs["one"], folder)
    assert "trained on a model called gpt2-small, and these activations are from a-model" in caplog.text
    assert "trained on other activations" in caplog.text


def test_an_sae_outside_the_run_is_named_by_what_it_is(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path / "some where" / "lens: x", hook_name=SITE)
    first = opened(runs["one"], folder)
    assert re.fullmatch(r"lens_x-[0-9a-f]{8}", first.name)
    moved = Path(shutil.copytree(folder, tmp_path / "lens: x"))
    assert opened(runs["one"], moved).name == first.name
    monkeypatch.chdir(moved.parent)
    assert opened(runs["one"], "lens: x").argument == str(moved)
    assert opened(runs["one"], f"lens: x@{SITE}").argument == f"{moved}@{SITE}"


def test_settings_are_hashed_unless_a_summary_vouches_for_them(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = save(tmp_path / "foreign", hook_name=SITE)
    before = opened(runs["one"], folder).hashes()
    edit_cfg(folder, extra="new")
    after = opened(runs["one"], folder).hashes()
    assert before.keys() == after.keys() == {"sae", "sae_cfg"}
    assert before["sae"] == after["sae"]
    assert before["sae_cfg"] != after["sae_cfg"]
    write_json(folder / "summary.json", {"files": {"cfg.json": {"sha256": file_hash(folder / "cfg.json")}}})
    assert opened(runs["one"], folder).hashes() == {"sae": before["sae"]}


def test_an_sae_of_the_run_keeps_its_name(runs: dict[str, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs["one"], tmp_path / "run"))
    save(run / "sae" / "mine", hook_name=SITE)
    for wanted, argument in ((None, "mine"), ("mine", "mine"), (run / "sae" / "mine", "mine")):
        found = opened(run, wanted)
        assert (found.name, found.folder) == ("mine", run / "sae" / "mine")
        assert found.argument == argument
        assert found.formerly() == {"sae": None}
    assert opened(run, f"mine@{SITE}").formerly() == {}  # it may be another site than the one that was found then
    (run / "sae" / "linked").symlink_to(save(tmp_path / "elsewhere", hook_name=SITE))
    assert opened(run, "linked").name == "linked"


def test_a_transcoder_is_encoded_but_not_put_back(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = save_lens_sae(tmp_path / "coder", "transcoder", d_in=D_IN, metadata={"hook_name": SITE})
    assert opened(runs["two"], folder).sae.d_in == D_IN
    with pytest.raises(UserError, match="is a transcoder: it writes to a place that it does not name"):
        opened(runs["two"], folder, decoded=True)
    edit_cfg(folder, metadata={"sae_lens_version": "6.0.0", "hook_name_out": "blocks.2.hook_mlp_out"})
    with pytest.raises(UserError, match=r"does not say at which site .* several fit its width"):
        opened(runs["two"], folder)


def test_latents_of_either_sign_come_as_two(
    runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_lens_sae(tmp_path / "either", "abstopk", d_in=D_IN, d_sae=30)
    with caplog.at_level(logging.INFO, "train_sae"):
        found = opened(runs["one"], folder).sae
    assert (found.d_sae, found.is_signed) == (60, False)
    assert "latent i stands for those above zero, latent 30 + i for those below" in caplog.text


@pytest.mark.parametrize(
    ("wanted", "parts"),
    [
        (None, (None, None)),
        ("mine", ("mine", None)),
        ("mine@resid/3", ("mine", "resid/3")),
        ("@projector", (None, "projector")),
        ("me@home/sae", ("me@home/sae", None)),
        ("me@home/sae@resid_pre/0", ("me@home/sae", "resid_pre/0")),
    ],
)
def test_a_site_stands_behind_the_last_at(wanted: str | None, parts: tuple[str | None, str | None]) -> None:
    assert split_site(wanted) == parts
