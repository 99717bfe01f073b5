"""An SAE as a stage uses it: found, read, and checked to belong to the run's activations.

Site, width and model are checked as far as the SAE states them. What it does not state is no reason to refuse it; the
log says what is missing and what is assumed instead.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from collect.artefact.folder import file_hash
from collect.artefact.stage import SUMMARY_NAME
from collect.errors import UserError
from collect.printable import printable
from collect.reading import ActivationStore
from train_sae.lens.config import CFG_NAME
from train_sae.lens.folding import WEIGHTS_NAME
from train_sae.lens.hook_names import is_site, same_place, site_of_hook
from train_sae.quality.metrics import evaluate
from train_sae.reading import find_sae
from train_sae.sae import Sae, load_sae

log = logging.getLogger(__name__)

GUESS_VIDEOS = 8
"""Videos that are used to find the site of an SAE that does not state it."""
GUESS_TOKENS = 512
"""Tokens of each."""
CLEARLY = 0.8
"""A site is chosen if its FVU is below this multiple of every other site's, and below this value itself."""


@dataclass(frozen=True, kw_only=True)
class OpenedSae:
    """An SAE that belongs to a run's activations."""

    sae: Sae
    """Its `site` is one of the store, and no activation is below zero."""
    folder: Path
    name: str
    """The name of the stages' folders for it."""
    argument: str
    """`--sae` as a stage's config.json keeps it: the same wherever the command is called from, and whether or not the
    run has other SAEs."""

    def formerly(self) -> dict[str, None]:
        """How earlier versions recorded it where it was left out, by the name of the argument."""
        return {} if split_site(self.argument)[1] is not None else {"sae": None}

    def hashes(self) -> dict[str, str]:
        """What a resumed stage must find unchanged.

        A summary vouches for the cfg.json in its folder (`train_sae.lens.config`); one without a summary is hashed too.
        """
        found = {"sae": file_hash(self.folder / WEIGHTS_NAME)}
        if not (self.folder / SUMMARY_NAME).exists():
            found["sae_cfg"] = file_hash(self.folder / CFG_NAME)
        return found


def open_sae(run: Path, store: ActivationStore, wanted: str | None, *, decoded: bool) -> OpenedSae:
    """Find an SAE, read it and check that it fits the store.

    Args:
        run: the run.
        store: its activations.
        wanted: a name or folder as for `find_sae`, followed by `@SITE` to use the SAE at that site.
        decoded: whether the stage also needs reconstructions at the site.

    Raises:
        UserError: there is no such SAE, it cannot be read, or what it states about itself contradicts the store.
    """
    name, asked = split_site(wanted)
    folder = find_sae(run, name)
    sae = load_sae(folder)
    if decoded and not sae.writes_where_it_reads:
        out = sae.metadata.get("hook_name_out")
        place = printable(out, 100) if out else "a place that it does not name"
        raise UserError(
            f"{folder} is a {sae.architecture}: it writes to {place}, not to where it reads, so that its latents "
            "cannot be edited and its reconstruction cannot be put in there; `video-sae features` takes it, or name "
            "another SAE with --sae."
        )
    _check_model(store, sae, folder)
    site = _site(store, sae, folder, asked)
    if sae.fingerprint and sae.fingerprint != store.fingerprint:
        log.info(
            "%s was trained on other activations than those in %s: videos that are held out here may have been among "
            "those that it was trained on.",
            folder,
            store.folder,
        )
    if sae.is_signed:
        log.info(
            "%s has activations of either sign: latent i stands for those above zero, latent %d + i for those below.",
            folder,
            sae.d_sae,
        )
    sae = replace(sae.one_sided(), metadata={**sae.metadata, "hook_name": site})
    own = stage_name(run, folder)
    argument = own if own == folder.name else str(folder.resolve())
    return OpenedSae(
        sae=sae,
        folder=folder,
        name=own,
        argument=argument if asked is None else f"{argument}@{asked}",
    )


def split_site(wanted: str | None) -> tuple[str | None, str | None]:
    """Split `NAME@SITE` into its parts; either may be missing.

    Raises:
        UserError: what follows the last @ does not look like a site, and there is nothing before it.
    """
    if wanted is None:
        return None, None
    name, at, site = wanted.rpartition("@")
    if not at or not is_site(site):
        return wanted, None
    return name or None, site


def name_of_wanted(run: Path, wanted: str | None) -> str:
    """The name of the stages' folders for an SAE that has not been opened yet.

    Raises:
        UserError: there is no such SAE.
    """
    return stage_name(run, find_sae(run, split_site(wanted)[0]))


def stage_name(run: Path, folder: Path) -> str:
    """The name of the stages' folders for an SAE: its name, with its weights' hash if it lies outside the run."""
    if folder.parent.resolve() == (run / "sae").resolve():
        return folder.name
    own = re.sub(r"[^\w.+-]+", "_", folder.resolve().name).strip(".") or "sae"
    return f"{own[:80]}-{file_hash(folder / WEIGHTS_NAME)[:8]}"


def _check_model(store: ActivationStore, sae: Sae, folder: Path) -> None:
    collected = str(store.model.get("name", ""))
    if sae.model_fingerprint and sae.model_fingerprint != store.model["fingerprint"]:
        of = f" ({printable(sae.model_name, 100)})" if sae.model_name else ""
        raise UserError(
            f"{folder} was trained on another model{of} than {store.folder} was collected from "
            f"({printable(collected, 100)}): name another SAE with --sae."
        )
    if sae.model_fingerprint:
        return
    if not sae.model_name:
        log.info("%s does not say which model it was trained on: %s is assumed.", folder, printable(collected, 100))
    elif _last(sae.model_name) != _last(collected):
        log.warning(
            "%s was trained on a model called %s, and these activations are from %s: they are taken to be the same.",
            folder,
            printable(sae.model_name, 100),
            printable(collected, 100),
        )


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def _site(store: ActivationStore, sae: Sae, folder: Path, asked: str | None) -> str:
    stated = sae.site
    translated = site_of_hook(stated)
    shown = printable(stated, 100)
    held = ", ".join(store.sites)
    if asked is not None:
        if asked not in store.sites:
            raise UserError(f"{store.folder} does not hold the site {asked} ({held}): name one of these behind the @.")
        if stated and (translated is None or asked not in same_place(translated)):
            log.warning("%s was trained at %s, and is read at %s as asked for.", folder, shown, asked)
        return _of_width(store, sae, folder, asked)
    remedy = f"write --sae {folder}@SITE to read it at one of these, or name another SAE"
    if stated and translated is None:
        raise UserError(
            f"{folder} was trained at {shown}, which is no hook site here; {store.folder} holds {held}: {remedy}."
        )
    if translated is not None:
        found = next((site for site in same_place(translated) if site in store.sites), None)
        if found is None:
            known = shown if stated == translated else f"{shown}, which is {translated},"
            raise UserError(
                f"{folder} was trained on site {known} and {store.folder} does not hold it ({held}): collect that "
                f"site, {remedy}."
            )
        if found != stated:
            log.info("%s was trained at %s, which is %s.", folder, shown, found)
        return _of_width(store, sae, folder, found)
    fitting = [site for site in store.sites if store.d_in(site) == sae.d_in]
    if len(fitting) == 1:
        log.info("%s does not say at which site it was trained: %s is assumed.", folder, fitting[0])
        return fitting[0]
    if not fitting:
        return _of_width(store, sae, folder, store.sites[0])
    return _best_site(store, sae, folder, fitting)


def _of_width(store: ActivationStore, sae: Sae, folder: Path, site: str) -> str:
    if sae.d_in != store.d_in(site):
        raise UserError(
            f"{folder} reads {sae.d_in} dimensions where {store.folder} has {store.d_in(site)} at {site}: name another "
            "SAE with --sae."
        )
    return site


def _best_site(store: ActivationStore, sae: Sae, folder: Path, sites: list[str]) -> str:
    """The site that an SAE reconstructs clearly better than any other of its width."""
    if sae.writes_where_it_reads:
        fvu = {site: _fvu(store, sae, site) for site in sites}
        best, second = sorted(sites, key=lambda site: fvu[site])[:2]
        if fvu[best] < CLEARLY * min(1.0, fvu[second]):
            log.warning(
                "%s does not say at which site it was trained: %s is assumed, which it reconstructs best (%s).",
                folder,
                best,
                _enumerated(fvu),
            )
            return best
        found = f"and reconstructs none of them clearly best ({_enumerated(fvu)})"
    else:
        found = f"and several fit its width ({', '.join(sites)})"
    raise UserError(
        f"{folder} does not say at which site it was trained, {found}: write --sae {folder}@SITE to choose one."
    )


def _fvu(store: ActivationStore, sae: Sae, site: str) -> float:
    videos = store.videos[:: max(1, len(store.videos) // GUESS_VIDEOS)]
    chunks = (store.read(site, v.row_start, min(v.row_stop, v.row_start + GUESS_TOKENS)).float() for v in videos)
    ((quality, _),) = evaluate([sae], chunks)
    return quality.fvu


def _enumerated(fvu: Mapping[str, float]) -> str:
    return ", ".join(f"FVU {value:.3g} at {site}" for site, value in fvu.items())
