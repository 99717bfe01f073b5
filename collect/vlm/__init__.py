"""Video VLMs behind one interface: `load_vlm` gives a `VideoVlm`, which turns a clip into a `Prefix`, and so on.

A new family is a subclass of `VideoVlm` in a module here, listed in `collect.vlm.loading`, and a tiny model that passes
`tests/collect/vlm_suite.py`.
"""

from collect.vlm.base import VideoVlm
from collect.vlm.loading import load_vlm
from collect.vlm.prompt import Embedded, Prefix, PrefixCache, Projected

__all__ = ["Embedded", "Prefix", "PrefixCache", "Projected", "VideoVlm", "load_vlm"]
