"""Files of a VLM checkpoint: finding them, fingerprinting them and loading model and processor from them.

Only safetensors, JSON, text and chat templates are fetched or read: never pickles, and never code from a checkpoint.
"""

import copy
import hashlib
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from collect.artefact.json_fields import Fields
from collect.artefact.json_file import read_json
from collect.config import AttnImplementation, Dtype
from collect.errors import UserError
from collect.printable import printable

logger = logging.getLogger(__name__)

Quantization = Literal["none", "8bit", "4bit"]

SUFFIXES = frozenset({".json", ".safetensors", ".jinja", ".txt", ".model"})
"""Of the files that are fetched and read."""
SAMPLED_BLOCKS = 64
BLOCK_BYTES = 1 << 18


def resolve_model(model: str) -> tuple[Path, str]:
    """Find the folder of a checkpoint, fetching it from the hub if `model` is not a folder, and its family.

    Returns:
        The folder, and the `model_type` of its configuration.

    Raises:
        UserError: there is no such folder or hub model, something in it is not a file, or it has no readable
            configuration.
    """
    folder = Path(model) if Path(model).is_dir() else _hub_folder(model)
    path = folder / "config.json"
    _require_files(folder)
    try:
        family = Fields(read_json(path, ""), "", "").text("model_type")
    except UserError:
        raise UserError(
            f"{path} is missing or is no model configuration: give a folder that `save_pretrained` wrote, or a hub id."
        ) from None
    return folder, family


def _require_files(folder: Path) -> None:
    """Refuse files that libraries would wait for or read without end: pipes, devices, and links to nothing."""
    for path in sorted(folder.iterdir()):
        if path.suffix in SUFFIXES and not path.is_file():
            raise UserError(f"{printable(path, 4096)} is not a file: restore it, or fetch {printable(folder)} again.")


@contextmanager
def usable(model: str) -> Generator[None]:
    """Say that a model cannot be used, if an object that is made from its files fails.

    Args:
        model: what the user named.

    Raises:
        UserError: instead of any error except one of memory.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged processor or tokenizer can raise anything
        logger.debug("what went wrong with %s:", model, exc_info=True)
        # The message of some errors, such as a missing key, says nothing without their kind.
        reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]]).rstrip(".")
        raise UserError(
            f"{model} cannot be used ({printable(reason, 300)}): check the processor, tokenizer and configuration "
            "files in its folder, or fetch it again."
        ) from None


@contextmanager
def _without_words() -> Generator[None]:
    """Keep transformers from writing to the terminal itself; it colours what it quotes from files."""
    from transformers.utils import logging as words

    before = words.get_verbosity()
    words.disable_default_handler()
    words.enable_propagation()
    words.set_verbosity_error()
    try:
        yield
    finally:
        words.set_verbosity(before)


def whole_config(model: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """A model's configuration with everything that its config.json leaves to transformers.

    That means sizes that were left out, and the text model's part if an earlier layout has its sizes at the top level.

    Args:
        model: the name that the user gave, for messages.
        content: what its config.json holds, of a family that transformers knows.

    Raises:
        UserError: transformers cannot make a configuration of it.
    """
    from transformers import AutoConfig

    given = {name: value for name, value in copy.deepcopy(dict(content)).items() if name != "model_type"}
    try:
        with _without_words():
            return AutoConfig.for_model(str(content["model_type"]), **given).to_dict()
    except Exception as error:  # whatever transformers raises, the file is the cause
        reason = printable(" ".join(str(error).split()) or type(error).__name__, 200).rstrip(".")
        raise UserError(
            f"The config.json of {model} is none of a {content['model_type']} model ({reason}): mend it, or fetch it "
            "again."
        ) from None


def _hub_folder(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if Path(model).is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise UserError(f"There is no model folder {model}: check the path, or give a hub id such as owner/name.")
    try:
        return Path(snapshot_download(model, allow_patterns=[f"*{suffix}" for suffix in sorted(SUFFIXES)]))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"There is no model {model}: neither a folder here nor available on the hub ({reason}); check the name, "
            "the network, and that you may read it."
        ) from None


def fingerprint(folder: Path) -> str:
    """Hash what decides a model's activations: configuration, processor, tokenizer and weights.

    Weight files contribute their size and evenly spread blocks of their content (every byte of a file of up to 16 MiB),
    so a checkpoint of any size takes less than a second.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        n_blocks = -(-size // BLOCK_BYTES)
        step = max(1, -(-n_blocks // SAMPLED_BLOCKS)) if path.suffix == ".safetensors" else 1
        with path.open("rb") as file:
            for block in range(0, n_blocks, step):
                file.seek(block * BLOCK_BYTES)
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()[:32]


def load_weights(
    folder: Path,
    model: str,
    *,
    dtype: Dtype,
    attn_implementation: AttnImplementation,
    device_map: Any = None,
    quantization: Quantization = "none",
) -> tuple[nn.Module, Any]:
    """Load model and processor from a folder.

    Args:
        folder: where they are.
        model: the name that the user gave, for messages.
        dtype: of the weights.
        attn_implementation: attention kernel.
        device_map: transformers' own argument; None loads to the CPU.
        quantization: bits of the weights, with bitsandbytes.

    Raises:
        UserError: the folder lacks a file or weights, a file is damaged, or a package that is needed for an argument is
            missing.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

    extra: dict[str, Any] = {} if device_map is None else {"device_map": device_map}

    try:
        if quantization != "none":
            bits: dict[str, Any] = {f"load_in_{quantization}": True}
            extra["quantization_config"] = BitsAndBytesConfig(**bits)
        with _without_words():
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            network, loaded = cast("Any", AutoModelForImageTextToText).from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=attn_implementation,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **extra,
            )
    except Exception as error:  # a damaged folder can make transformers raise anything
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = printable(lines[0].rstrip("."), 300)
        raise UserError(
            f"{model} cannot be loaded ({reason}): check that its folder is complete, or fetch it again."
        ) from None
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise UserError(
            f"{model} lacks {len(missing)} of its weights, such as {printable(missing[0], 200)}, which transformers "
            "would fill at random: check that its folder is complete, or fetch it again."
        )
    return network, processor
