"""A case: one video with its questions, run up to the site, with the sparse codes of its visual tokens.

Everything that an intervention does not change is computed once here; screening and exact runs go on from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ask.packing import Sequences, letter_logits, packing_agrees, restrict, run_to, sequences
from ask.questions import LETTERS, N_OPTIONS, Item
from collect.data.perception_test import Video
from collect.video.decode import decode_clip
from collect.video.sampling import FrameSampling
from collect.vlm import Prefix, VideoVlm
from train_sae.sae import Sae


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """Latent activations of a video's visual tokens: the non-zeros, by token and latent."""

    token: Int[Tensor, " nonzero"]
    latent: Int[Tensor, " nonzero"]
    value: Float[Tensor, " nonzero"]
    n_tokens: int

    @classmethod
    def of(cls, sae: Sae, residuals: Float[Tensor, "token d_in"]) -> Codes:
        """Encode residuals, of which those of a sequential SAE are one video's in order.

        Activations are in units of `sae.W_dec` in the residual: where an SAE normalises each token, its own activations
        are multiplied by what it divides the token by.
        """
        latent, value, pointers = sae.encode_sparse(residuals.float())
        counts = (pointers[1:] - pointers[:-1]).to(torch.int64)
        token = torch.repeat_interleave(torch.arange(len(residuals), device=counts.device), counts)
        if sae.token_norm != "none":
            value = value * sae.written_per_unit(residuals)[token]
        return cls(token=token, latent=latent.to(torch.int64), value=value, n_tokens=len(residuals))

    def every(self, stride: int) -> Codes:
        """Those of every `stride`-th token."""
        kept = self.token % stride == 0
        return Codes(
            token=self.token[kept] // stride,
            latent=self.latent[kept],
            value=self.value[kept],
            n_tokens=-(-self.n_tokens // stride),
        )

    @classmethod
    def joined(cls, parts: Sequence[Codes]) -> Codes:
        """Those of several lots of tokens, one lot behind the other."""
        starts = itertools.accumulate((part.n_tokens for part in parts), initial=0)
        return cls(
            token=torch.cat([part.token + start for part, start in zip(parts, starts, strict=False)]),
            latent=torch.cat([part.latent for part in parts]),
            value=torch.cat([part.value for part in parts]),
            n_tokens=sum(part.n_tokens for part in parts),
        )

    def columns(self, latents: Sequence[int]) -> Float[Tensor, "token latent"]:
        """Activations of some latents on every visual token."""
        dense = torch.zeros(self.n_tokens, len(latents), device=self.value.device)
        for place, latent in enumerate(latents):
            found = self.latent == latent
            dense[self.token[found], place] = self.value[found]
        return dense

    def fires(self, latents: Sequence[int]) -> bool:
        """Whether any of some latents fires on any visual token."""
        return bool(torch.isin(self.latent, torch.tensor(list(latents), device=self.latent.device)).any())


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One video, its items in order, and the unedited model's answers to them."""

    video_id: str
    items: tuple[Item, ...]
    laid: Sequences
    """Residuals at the site; question number = 3 x item + cyclic order."""
    correct: Int[Tensor, "item order"]
    values: Float[Tensor, "item order letter"]
    """Numbers behind the letters; NaN for control questions."""
    logits: Float[Tensor, "item order letter"]
    mass: Float[Tensor, "item order"]

    def of_items(self, kept: Sequence[int]) -> Case:
        """The same video with some of its items only."""
        index = torch.tensor(sorted(kept), device=self.correct.device)
        questions = [N_OPTIONS * item + order for item in sorted(kept) for order in range(N_OPTIONS)]
        return replace(
            self,
            items=tuple(self.items[item] for item in sorted(kept)),
            laid=restrict(self.laid, questions),
            correct=self.correct[index],
            values=self.values[index],
            logits=self.logits[index],
            mass=self.mass[index],
        )

    @property
    def counting(self) -> tuple[int, ...]:
        """Places of the counting items."""
        return tuple(place for place, item in enumerate(self.items) if item.counting)


def clip_prefix(vlm: VideoVlm, video: Video, frames: FrameSampling | int) -> Prefix:
    """Decode a video's clip, cut where its questions want it cut, and run the vision tower.

    Raises:
        UserError: the video cannot be decoded.
    """
    clip = decode_clip(_file(video), video.video_id, frames, video.cut_frame)
    return vlm.with_features([vlm.prefix(clip)])[0]


def lay_out(vlm: VideoVlm, prefix: Prefix, items: Sequence[Item], *, packed: bool) -> Sequences:
    """Embed all option orders of all items about one video."""
    suffixes = [vlm.suffix(text) for item in items for text in item.prompts]
    return sequences(vlm.embed([prefix] * len(suffixes), suffixes), packed=packed)


def packing_works(vlm: VideoVlm, prefix: Prefix, items: Sequence[Item], site: str) -> bool:
    """Check once, on one video, whether this model answers packed questions as it answers them one by one."""
    suffixes = [vlm.suffix(text) for item in items[:2] for text in item.prompts]
    emb = vlm.embed([prefix] * len(suffixes), suffixes)
    return packing_agrees(vlm, site, emb, vlm.answer_ids(LETTERS))


def build_case(
    vlm: VideoVlm, site: str, laid: Sequences, items: Sequence[Item], letters: Int[Tensor, " letter"]
) -> Case:
    """Answer the items without an intervention.

    Args:
        vlm: the model.
        site: where `laid` holds the residuals.
        laid: the questions about one video.
        items: the items, in the order of their questions in `laid`.
        letters: token ids of the option letters.
    """
    with torch.no_grad():
        logits, mass = letter_logits(vlm, site, laid, laid.hidden, letters)
    missing = ((float("nan"),) * N_OPTIONS,) * N_OPTIONS
    device = logits.device
    return Case(
        video_id=items[0].video_id,
        items=tuple(items),
        laid=laid,
        correct=torch.tensor([item.correct_letters for item in items], device=device),
        values=torch.tensor([item.letter_values or missing for item in items], device=device),
        logits=logits[0].unflatten(0, (-1, N_OPTIONS)),
        mass=mass[0].unflatten(0, (-1, N_OPTIONS)),
    )


def edited_logits(
    vlm: VideoVlm,
    site: str,
    case: Case,
    changes: Iterable[Float[Tensor, "visual d_model"]],
    letters: Int[Tensor, " letter"],
    batch_size: int,
) -> tuple[Float[Tensor, "edit item order letter"], Float[Tensor, "edit item order"]]:
    """Answer a case's items once per edit of its visual residuals.

    Args:
        vlm: the model.
        site: where the case's residuals were read.
        case: the video and its questions.
        changes: what each edit adds to the residuals of the visual tokens; taken from the iterator batch by batch.
        letters: token ids of the option letters.
        batch_size: edits per forward.

    Returns:
        Letter logits, and the probability of the three letters together.
    """
    laid = case.laid
    logits: list[Tensor] = []
    mass: list[Tensor] = []
    remaining = iter(changes)
    with torch.no_grad():
        while batch := list(itertools.islice(remaining, batch_size)):
            hidden = laid.hidden.repeat(len(batch), 1, 1)
            rows = torch.stack(batch).to(hidden.dtype).repeat_interleave(len(laid.hidden), dim=0)
            hidden[:, laid.visual_positions] += rows
            some_logits, some_mass = letter_logits(vlm, site, laid, hidden, letters)
            logits.append(some_logits)
            mass.append(some_mass)
    orders = (-1, N_OPTIONS)
    return torch.cat(logits).unflatten(1, orders), torch.cat(mass).unflatten(1, orders)


def residuals_at(vlm: VideoVlm, laid: Sequences, site: str) -> Sequences:
    """Run embedded questions up to one site."""
    return run_to(vlm, laid, [site])[site]


def _file(video: Video) -> Path:
    assert video.path is not None, f"{video.video_id} has no file"
    return video.path
