"""A decoder's keys and values of one prefix, for any number of questions about it."""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from collect.vlm.prompt import Prefix, prompt_positions
from collect.vlm.video_vlm import VideoVlm


class PrefixCache:
    """Runs the decoder over a prefix once and keeps its keys and values.

    Args:
        vlm: the model.
        prefix: a clip, from `VideoVlm.prefix`.
    """

    def __init__(self, vlm: VideoVlm, prefix: Prefix) -> None:
        from transformers import DynamicCache

        (self._prefix,) = vlm.with_features([prefix])
        self._vlm = vlm
        self._keys_values: Any = DynamicCache(config=vlm.family.config.get_text_config())
        emb = vlm.embed([self._prefix], None)
        with torch.no_grad():
            cast("Any", vlm.decoder)(
                inputs_embeds=emb.inputs_embeds,
                past_key_values=self._keys_values,
                use_cache=True,
                **vlm.embedded_kwargs(emb, layer=0),
            )

    def logits(self, suffixes: Sequence[Int64[Tensor, " _"]]) -> Float[Tensor, "suffix vocab"]:
        """Answer questions: float32 logits at each question's last token. The cache does not change.

        Args:
            suffixes: from `VideoVlm.suffix`.
        """
        vlm, n_prefix = self._vlm, self._prefix.input_ids.shape[1]
        lengths = torch.tensor([len(suffix) for suffix in suffixes])
        ids = nn.utils.rnn.pad_sequence([suffix.cpu() for suffix in suffixes], batch_first=True)
        n = ids.shape[1]
        is_real = torch.arange(n)[None] < lengths[:, None]
        mask = torch.cat([torch.ones(len(ids), n_prefix, dtype=torch.bool), is_real], dim=1)
        positions = prompt_positions(self._prefix, n_prefix + n)[:, None, n_prefix:].expand(-1, len(ids), -1)
        keys_values = copy.deepcopy(self._keys_values)
        keys_values.batch_repeat_interleave(len(ids))
        with torch.no_grad():
            hidden: Tensor = cast("Any", vlm.decoder)(
                inputs_embeds=vlm.text_embeddings(ids),
                past_key_values=keys_values,
                use_cache=True,
                attention_mask=mask.to(vlm.device),
                position_ids=(positions[0] if len(positions) == 1 else positions).to(vlm.device),
            ).last_hidden_state
            return vlm.head(hidden[torch.arange(len(ids)), lengths - 1])
