"""What every family of video VLMs must do, as tests: subclass `VideoVlmTests` and give a tiny model.

    import pytest
    from collect.vlm import load_vlm
    from collect.vlm.conformance import VideoVlmTests, byte_tokenizer, chat_template, save_checkpoint

    @pytest.fixture(scope="module")
    def vlm(tmp_path_factory):
        folder = tmp_path_factory.mktemp("tiny")
        save_checkpoint(folder, lambda: MyModel(MyConfig(...)), MyProcessor(tokenizer=byte_tokenizer("<video>"), ...))
        return load_vlm(str(folder), device="cpu")

    class TestMyFamily(VideoVlmTests):
        frames_per_step = 1

The model has random weights: the tests do not check meaning; they check where things are, and that shortcuts equal the
long way round. It needs at least 3 decoder layers, several tokens per frame, and a token for each of the letters A, B
and C. This package is imported only in tests, because it needs pytest:

    places       what is painted into a box of a frame changes the token that claims that box
    prompts      prompts are what the checkpoint's own processor and chat template make
    passes       hidden states and logits are those of the model's own forward pass
    subject      the fixtures that these share
    clips        pictures, clips and video files for them
    checkpoints  tiny random checkpoints in transformers' layout
"""

import pytest

# Before they are imported, so that a failed assertion shows its values.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in ("passes", "places", "prompts")))

from collect.vlm.conformance.checkpoints import byte_tokenizer, chat_template, save_checkpoint  # noqa: E402
from collect.vlm.conformance.clips import clip_of, close, noise  # noqa: E402
from collect.vlm.conformance.passes import PassTests  # noqa: E402
from collect.vlm.conformance.places import PlaceTests  # noqa: E402
from collect.vlm.conformance.prompts import PromptTests  # noqa: E402

__all__ = ["VideoVlmTests", "byte_tokenizer", "chat_template", "clip_of", "close", "noise", "save_checkpoint"]


class VideoVlmTests(PlaceTests, PromptTests, PassTests):
    """All tests of a family; a subclass provides a fixture `vlm`."""
