"""Translates other libraries' names for the places of a forward pass into this project's hook sites.

Only names that mean the same in every model are translated: TransformerLens's names of the residual stream and of what
attention and MLP add to it, and the modules of transformers whose output is the residual stream.
"""

import re

from collect.vlm.sites import SiteKind

_OWN = re.compile(r"projector|(resid_pre|attn_out|mlp_out|resid|vision)/(0|[1-9]\d*)")
_TRANSFORMER_LENS: dict[str, SiteKind] = {
    "hook_resid_pre": "resid_pre",
    "hook_in": "resid_pre",
    "hook_resid_post": "resid",
    "hook_out": "resid",
    "hook_attn_out": "attn_out",
    "attn.hook_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_out": "mlp_out",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_MODULE = re.compile(r"(?:(.*)\.)?(?:layers|h|blocks|block)\.(\d+)")
_VISION = re.compile(r"vision|visual|image|vit\b", re.IGNORECASE)


def is_site(name: str) -> bool:
    """Whether a name has the form of a site's."""
    return _OWN.fullmatch(name) is not None


def site_of_hook(name: str) -> str | None:
    """The site that a hook's name means; None if it means none.

    Args:
        name: a site's own name, such as `resid/12`; one of TransformerLens, such as `blocks.12.hook_resid_post`; or the
            name of a layer in transformers, such as `model.language_model.layers.12`, which means its output.
    """
    if is_site(name):
        return name
    if (block := _BLOCK.fullmatch(name)) and block[2] in _TRANSFORMER_LENS:
        return f"{_TRANSFORMER_LENS[block[2]]}/{int(block[1])}"
    if module := _MODULE.fullmatch(name):
        return f"{'vision' if _VISION.search(module[1] or '') else 'resid'}/{int(module[2])}"
    return None


def same_place(site: str) -> tuple[str, ...]:
    """A site and the names of others that hold the same tensor: the one that the first decoder layer reads."""
    first = ("projector", "resid_pre/0")
    return first if site in first else (site,)
