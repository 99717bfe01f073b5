"""Which families there are: those of this package, those registered from Python, and those of installed packages."""

from importlib.metadata import EntryPoint, entry_points

from collect.errors import UserError
from collect.printable import printable
from collect.vlm.families.gemma3 import Gemma3
from collect.vlm.families.internvl import InternVl
from collect.vlm.families.llava import LlavaNextVideo, LlavaOnevision
from collect.vlm.families.perception_lm import PerceptionLm
from collect.vlm.families.qwen import Qwen3Vl, Qwen25Vl
from collect.vlm.families.smolvlm import SmolVlm
from collect.vlm.family import VlmFamily

ENTRY_POINTS = "video_sae.families"
"""Group of entry points under which an installed package offers families: `model_type = "package.module:Class"`."""

_OWN = (PerceptionLm, LlavaOnevision, LlavaNextVideo, Qwen25Vl, Qwen3Vl, InternVl, SmolVlm, Gemma3)
_families: dict[str, type[VlmFamily]] = {cls.model_type: cls for cls in _OWN}


def register_family(cls: type[VlmFamily]) -> type[VlmFamily]:
    """Let `load_vlm` take checkpoints of a family, in this process; works as a decorator too.

    The commands take families of installed packages, which offer them as entry points (`ENTRY_POINTS`).

    Raises:
        UserError: another class has its `model_type`.
    """
    taken = _families.get(cls.model_type, cls)
    # If a notebook's cell is run again, it defines its class again.
    if _name(taken) != _name(cls):
        raise UserError(f"{_name(cls)} cannot be registered: {_name(taken)} is the family {cls.model_type!r} already.")
    _families[cls.model_type] = cls
    return cls


def family_class(model: str, model_type: str) -> type[VlmFamily]:
    """The class of a model's family.

    Args:
        model: the name that the user gave, for messages.
        model_type: of its configuration.

    Raises:
        UserError: there is no such family, or the installed package that offers it has none.
    """
    if model_type in _families:
        return _families[model_type]
    offered = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if model_type in offered:
        return register_family(_loaded(offered[model_type]))
    raise UserError(
        f"{model} is of the family {model_type!r}, which is not supported: use a model of one of "
        f"{', '.join(sorted({*_families, *offered}))}."
    )


def _loaded(entry: EntryPoint) -> type[VlmFamily]:
    """What an installed package offers."""
    remedy = f"mend the package that offers the family {entry.name!r} as the entry point {entry.value}, or remove it"
    try:
        found: object = entry.load()
    except Exception as error:  # whatever another package's import raises
        reason = printable(" ".join(str(error).split()) or type(error).__name__, 200).rstrip(".")
        raise UserError(f"{entry.value} cannot be imported ({reason}): {remedy}.") from None
    if not (isinstance(found, type) and issubclass(found, VlmFamily) and found.model_type == entry.name):
        raise UserError(f"{entry.value} is no VlmFamily whose model_type is {entry.name!r}: {remedy}.")
    return found


def _name(cls: type[VlmFamily]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
