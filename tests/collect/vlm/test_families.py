from collections.abc import Callable

import pytest

from collect.vlm import VideoVlm
from collect.vlm.conformance import VideoVlmTests


class FamilyTests(VideoVlmTests):
    model_type: str
    """Which of `tests.collect.tiny_models.BUILDERS` to test."""

    @pytest.fixture
    def vlm(self, tiny_vlms: Callable[[str], VideoVlm]) -> VideoVlm:
        return tiny_vlms(self.model_type)


class TestPerceptionLm(FamilyTests):
    model_type = "perception_lm"


class TestLlavaOnevision(FamilyTests):
    model_type = "llava_onevision"


class TestLlavaNextVideo(FamilyTests):
    model_type = "llava_next_video"


class TestQwen25Vl(FamilyTests):
    model_type = "qwen2_5_vl"
    frames_per_step = 2


class TestQwen3Vl(FamilyTests):
    model_type = "qwen3_vl"
    frames_per_step = 2


class TestInternVl(FamilyTests):
    model_type = "internvl"


class TestSmolVlm(FamilyTests):
    model_type = "smolvlm"


class TestGemma3(FamilyTests):
    model_type = "gemma3"
