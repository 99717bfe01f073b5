"""Video VLMs behind one interface: `load_vlm` gives a `VideoVlm`.

    loading        `load_vlm`: family, device, weights, and the check of what was loaded
    files          finding, fingerprinting and loading a checkpoint's files
    check          a loaded checkpoint against its own forward pass
    unembedding    the unembedding, read without loading the model
    video_vlm      `VideoVlm`: hidden states at sites, and logits resumed after one
    family         `VlmFamily`: what differs between families
    families/      one adapter per family, and their registry
    prompts        a clip through its processor, and the text that follows it
    chat           the text that a model's template renders for a video and a question
    clip_metadata  a clip's frame rate, indices and times, for transformers' processors
    prompt         a prompt in its stages: a clip's prefix, and whole prompts as embeddings
    attention      which tokens see each other, and what DeepStack adds
    sites          hook sites: names, reading them with an early exit, resuming after one
    keys_values    keys and values of a decoder's layers: recorded, projected, given to a pass
    prefix_cache   keys and values of one prefix, for any number of questions
    conformance/   what every family must do, as tests that anyone can subclass

`docs/models.md` says how a family is added, here or in a package of your own.
"""

from collect.vlm.families.registry import register_family
from collect.vlm.family import VlmFamily
from collect.vlm.loading import load_vlm, require_sites
from collect.vlm.prefix_cache import PrefixCache
from collect.vlm.prompt import Embedded, Prefix, Projected
from collect.vlm.video_vlm import VideoVlm

__all__ = [
    "Embedded",
    "Prefix",
    "PrefixCache",
    "Projected",
    "VideoVlm",
    "VlmFamily",
    "load_vlm",
    "register_family",
    "require_sites",
]
