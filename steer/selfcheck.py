"""What must hold before any effect is believed, checked on one video whenever the stage starts.

Tools of this kind fail silently: an edit that never reaches the model looks like a latent without an effect. So an edit
of nothing must change no bit, an edit must have the norm that was asked for and stand where it was asked for, and the
answer to it must not depend on what was run before. It must be seen at its token, and not before the video.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ask.cases import Case, edited_logits
from ask.packing import run_on
from collect.errors import UserError
from collect.printable import printable
from steer.codes import CodedCases, VideoCodes
from steer.edits.operations import Operation
from steer.effects import Editor, edit
from steer.targets import Target

STRENGTH = 0.25
"""Norm of the edit that is tried, in median residual norms."""
NORM_TOLERANCE = 1e-4
"""Largest relative difference between the norm that was asked for and the one that was made."""


def check_on_a_video(editor: Editor, cases: CodedCases) -> None:
    """Check that edits do what they say, on the first video in which a latent fires.

    Args:
        editor: the model and the SAE.
        cases: the videos and their codes.

    Raises:
        UserError: one of the checks fails, which is named; or no latent fires at all.
    """
    for video_id in cases.cases.videos:
        case, codes = cases[video_id]
        if len(codes.latent):
            check_edits(editor, case, codes)
            return
    raise UserError(
        f"No latent of the SAE at {editor.model.site} fires in any video with questions: it is damaged, or was trained "
        "on other activations. Train it again."
    )


def check_edits(editor: Editor, case: Case, codes: VideoCodes) -> None:
    """Check that edits do what they say.

    Args:
        editor: the model and the SAE.
        case: a video with its questions.
        codes: activations of its visual tokens, not all silent.

    Raises:
        UserError: one of the checks fails; it is named.
    """
    nothing = torch.zeros_like(case.sequences.visual, dtype=torch.float32)
    if not torch.equal(_logits(editor, case, nothing), case.logits):
        raise _failed("an edit of nothing changes the answers", editor)
    latent = int(codes.latent[0])
    target = Target(id=str(latent), latents=(latent,), selected_by="given", subject="")
    made = edit(editor, codes, target, Operation(kind="add", strength=STRENGTH)).change
    wanted = STRENGTH * editor.reference.median_norm
    if ((made.norm(dim=1) - wanted).abs() > NORM_TOLERANCE * wanted).any():
        raise _failed("an edit has another norm than the one that was asked for", editor)
    ablated = edit(editor, codes, target, Operation.parse("ablate")).change
    fires = torch.zeros(codes.n_tokens, dtype=torch.bool, device=ablated.device)
    fires[codes.token[codes.latent == latent]] = True
    if not torch.equal(ablated.norm(dim=1) > 0, fires):
        raise _failed("an ablation does not stand on the tokens where its latent fires", editor)
    if not _is_seen_in_place(editor, case, made):
        raise _failed("an edit of one token is not seen at that token, or is seen before the video", editor)
    first = _logits(editor, case, made)
    _logits(editor, case, -made)
    if not torch.equal(_logits(editor, case, made), first):
        raise _failed("the answer to an edit depends on what was run before", editor)


def _is_seen_in_place(editor: Editor, case: Case, made: Float[Tensor, "token d_in"]) -> bool:
    """Whether an edit of the middle visual token changes the model's output there, and none before the video."""
    seq = case.sequences
    place = int(seq.visual_positions[len(seq.visual_positions) // 2])
    hidden = seq.hidden.clone()
    hidden[:, place] += made[len(made) // 2].to(hidden.dtype)
    with torch.no_grad():
        before, after = (run_on(editor.model, seq, each)[0, 0] for each in (seq.hidden, hidden))
    earlier = slice(0, int(seq.visual_positions[0]))
    return not torch.equal(before[place], after[place]) and torch.allclose(before[earlier], after[earlier])


def _logits(editor: Editor, case: Case, change: Float[Tensor, "token d_in"]) -> Float[Tensor, "item order letter"]:
    return edited_logits(editor.model, case, [change], 1)[0][0]


def _failed(what: str, editor: Editor) -> UserError:
    return UserError(
        f"{printable(editor.model.vlm.name)} fails a self-test of this stage at {editor.model.site}: {what}. No effect "
        "could be believed: try --device cpu, and report the model with its versions if it fails there too."
    )
