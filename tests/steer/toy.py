"""A video VLM small enough to work out by hand, with planted truth.

Residuals have eight dimensions. Dimension 0 of a visual token is evidence that there are many things to count; the
decoder's only layers add to every token the mean evidence it can see (times `GAIN`), and the head's logit of a letter
is the evidence at the last token times the number that the letter stands for, plus a bias of the letter. So the answer
is linear in the visual residuals, along one known direction. The suffix of a prompt is its three numbers and an end.
"""

import re
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ask.cases import Case, build_case, embed_items, residuals_at
from ask.packing import Asked
from ask.questions import Item
from collect.tokens.grid import TokenGrid
from collect.vlm import Embedded, Prefix, VideoVlm, VlmFamily
from train_sae.sae import Sae

D, GAIN = 8, 2.0
N_VISUAL = 4
EVIDENCE, VALUES = 0, slice(1, 4)
LETTERS = torch.tensor([0, 1, 2])


class _Layer(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        allowed = mask.to(hidden.dtype)
        mean = (allowed @ hidden[..., :1]) / allowed.sum(dim=-1, keepdim=True)
        return torch.cat([hidden[..., :1] + self.gain * mean, hidden[..., 1:]], dim=-1)


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Layer(0.0), _Layer(GAIN)])

    def forward(
        self,
        inputs_embeds: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor | None = None,
        use_cache: bool = False,
    ) -> Any:
        assert not use_cache
        assert position_ids.shape == inputs_embeds.shape[:2]
        n = inputs_embeds.shape[1]
        visible = torch.ones(n, n).tril()[None] if attention_mask is None else (attention_mask[:, 0] == 0).float()
        hidden = inputs_embeds
        for layer in self.layers:
            hidden = layer(hidden, visible)
        return SimpleNamespace(last_hidden_state=hidden)


class _Head(nn.Module):
    def __init__(self, letter_bias: tuple[float, float, float]) -> None:
        super().__init__()
        self.bias = torch.tensor(letter_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        letters = hidden[..., :1] * hidden[..., VALUES] + self.bias
        return torch.cat([letters, torch.zeros_like(letters[..., :2])], dim=-1)


class _Model(nn.Module):
    def __init__(self, letter_bias: tuple[float, float, float]) -> None:
        super().__init__()
        self.decoder, self.head = _Decoder(), _Head(letter_bias)

    def get_decoder(self) -> nn.Module:
        return self.decoder

    def get_output_embeddings(self) -> nn.Module:
        return self.head


class ToyFamily(VlmFamily):
    """Where the toy keeps its parts; nothing of its vision side is run."""

    model_type: ClassVar[str] = "toy"
    default_frames: ClassVar[int] = 1
    d_model: ClassVar[int] = D

    def grids(self, pixels: Any, clip: Any) -> Any:
        raise NotImplementedError

    def project(self, pixels: Any) -> Any:
        raise NotImplementedError


class ToyVlm(VideoVlm):
    """The model described above; `letter_bias` is added to the logits of A, B and C."""

    def __init__(self, letter_bias: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        self.name, self.fingerprint = "toy", "toy"
        self.family = ToyFamily("toy", _Model(letter_bias), None)

    def prefix(self, clip: Any) -> Prefix:
        """The mean brightness of a clip is its evidence: 0 at black, 1 at white."""
        return visual(torch.full((N_VISUAL,), float(np.mean(clip.frames)) / 255), frame_ids=clip.frame_ids)

    def suffix(self, question: str) -> Tensor:
        """Three numbers, or zeros where the options are not numbers (then every letter is alike), and an end."""
        numbers = [int(text) for text in re.findall(r"^[ABC]\. (\d+)$", question, flags=re.MULTILINE)]
        return torch.tensor([*(numbers or [0, 0, 0]), 0])

    def embed(self, prefixes: Any, suffixes: Any) -> Embedded:
        n_prefix = 1 + N_VISUAL
        n = n_prefix + (4 if suffixes is not None else 0)
        embeds = torch.zeros(len(prefixes), n, D)
        for row, prefix in enumerate(prefixes):
            embeds[row, 1:n_prefix] = prefix.features
            if suffixes is not None:
                embeds[row, -1, VALUES] = suffixes[row][:3].float()
        return Embedded(
            inputs_embeds=embeds,
            attention_mask=torch.ones(len(prefixes), n, dtype=torch.bool),
            position_ids=torch.arange(n).repeat(len(prefixes), 1),
            visual_positions=torch.arange(1, n_prefix),
            last=torch.full((len(prefixes),), n - 1),
        )

    def answer_ids(self, letters: Any = ("A", "B", "C")) -> Tensor:
        return LETTERS[: len(letters)]


def visual(evidence: Tensor, noise: Tensor | None = None, frame_ids: np.ndarray | None = None) -> Prefix:
    """A prefix whose visual tokens hold this evidence (and this noise in dimensions 4 to 7)."""
    features = torch.zeros(N_VISUAL, D)
    features[:, EVIDENCE] = evidence
    if noise is not None:
        features[:, 4:] = noise
    ids = np.arange(1, dtype=np.int64) if frame_ids is None else frame_ids
    grid = TokenGrid.uniform(n_rows=2, n_cols=2, spans_s=np.array([[0.0, 1.0]] * len(ids)), frame_ids=ids)
    return Prefix(
        input_ids=torch.tensor([[8] + [9] * N_VISUAL]),
        pixels={},
        visual_positions=torch.arange(1, 1 + N_VISUAL),
        grid=grid,
        features=features,
    )


def toy_sae(scale: float = 1.0, **metadata: Any) -> Sae:
    """Latent j reads and writes dimension j (writing it times `scale`); latent 7 never fires."""
    return Sae(
        architecture="jumprelu",
        k=1,
        W_enc=torch.eye(D),
        W_dec=torch.eye(D) * scale,
        b_enc=torch.tensor([0.0] * 7 + [-100.0]),
        b_dec=torch.zeros(D),
        threshold=torch.zeros(D),
        metadata=metadata,
    )


SUBJECT = "how many"
"""What the toy's counting questions count."""


def counting_item(
    video_id: str = "v",
    question_id: int = 0,
    options: tuple[str, ...] = ("1", "2", "3"),
    answer_id: int = 2,
    **kwargs: Any,
) -> Item:
    """A counting question."""
    return Item(
        video_id=video_id,
        question_id=question_id,
        question="How many?",
        options=options,
        answer_id=answer_id,
        kind="object counting",
        values=tuple(float(option) for option in options),
        held_out=kwargs.get("held_out", True),
    )


def noncounting_item(video_id: str = "v", question_id: int = 9, held_out: bool = True) -> Item:
    """A question that the toy answers with indifference, whatever it sees."""
    return Item(
        video_id=video_id,
        question_id=question_id,
        question="What colour?",
        options=("red", "green", "blue"),
        answer_id=0,
        kind="colour",
        values=None,
        held_out=held_out,
    )


def toy_case(
    vlm: VideoVlm, prefix: Prefix, items: tuple[Item, ...], site: str = "resid/0", packed: bool = True
) -> Case:
    """A case at a site before the layer that reads the evidence."""
    seq = residuals_at(vlm, embed_items(vlm, prefix, items, packed=packed), site)
    return build_case(Asked.at(vlm, site), seq, items)
