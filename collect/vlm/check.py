"""The numeric check of a loaded checkpoint against its own forward pass."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from collect.errors import UserError
from collect.video.decode import Clip
from collect.vlm.clip_metadata import blank_clip
from collect.vlm.sites import Site, read_sites
from collect.vlm.video_vlm import VideoVlm

QUESTIONS = ("How many objects are there?", "What happens at the end, and why? A. nothing")
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.08, torch.float16: 0.02}
"""Largest difference at a token, relative to the norm of its residual."""


def check_prefix(vlm: VideoVlm) -> None:
    """Compare the last layer's residuals with those of the model's own forward pass, for two different questions.

    One number shows that the prefix does not depend on the question, that the early exit changes nothing, and that
    positions, masks and placeholders are the model's own. Two small frames of noise, three passes.

    Raises:
        UserError: they differ.
    """
    clip = _noise_clip()
    last = Site(kind="resid", layer=vlm.n_layers - 1)
    prefix = vlm.prefix(clip)
    alone = vlm.residual(vlm.embed([prefix], None), last.name)[0].cpu()
    for question in QUESTIONS:
        own = own_residuals(vlm, clip, question, last)
        emb = vlm.embed([prefix], [vlm.suffix(question)])
        whole = vlm.residual(emb, last.name)[0].cpu()
        if own.shape != whole.shape:
            raise UserError(f"{vlm.name} lays out its prompt in an unknown way: this checkpoint is not supported.")
        worst = max(_difference(whole, own), _difference(alone, own[: len(alone)]))
        if not worst <= TOLERANCE[vlm.dtype]:
            raise UserError(
                f"The residuals of {vlm.name} at its visual tokens differ by {worst:.1%} from those of its own forward "
                "pass with a question: its visual tokens see the question or its prompt is laid out in an unknown way, "
                "so that this checkpoint is not supported."
            )


def own_inputs(vlm: VideoVlm, clip: Clip, question: str) -> dict[str, Tensor]:
    """What the model's own processor makes of a clip and a question, on the model's device and in its precision."""
    return {
        name: x.to(vlm.device, vlm.dtype if name in vlm.family.vision_inputs and x.is_floating_point() else None)
        for name, x in vlm.processed(clip, question).items()
        if isinstance(x, Tensor)
    }


def own_residuals(vlm: VideoVlm, clip: Clip, question: str, site: Site) -> Float[Tensor, "token d_model"]:
    """Residuals of all tokens of a prompt from the model's own forward pass on its own processor's inputs."""
    with torch.inference_mode(), read_sites(vlm.decoder, [site]) as found:
        vlm.model(**own_inputs(vlm, clip, question), use_cache=False)
    return found[site.name][0].cpu()


def _difference(a: Float[Tensor, "token d_model"], b: Float[Tensor, "token d_model"]) -> float:
    return float(((a.float() - b.float()).norm(dim=1) / b.float().norm(dim=1)).max())


def _noise_clip() -> Clip:
    blank = blank_clip(n_frames=2)
    frames = np.random.default_rng(0).integers(0, 256, blank.frames.shape, dtype=np.uint8)
    return Clip(
        video_id="noise",
        path=blank.path,
        frames=frames,
        times_s=blank.times_s,
        frame_ids=blank.frame_ids,
        frame_rate=blank.frame_rate,
        n_frames=2,
    )
