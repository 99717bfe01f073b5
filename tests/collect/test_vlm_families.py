from tests.collect.vlm_suite import VideoVlmTests


class TestPerceptionLm(VideoVlmTests):
    family = "perception_lm"


class TestLlavaOnevision(VideoVlmTests):
    family = "llava_onevision"


class TestLlavaNextVideo(VideoVlmTests):
    family = "llava_next_video"


class TestQwen25Vl(VideoVlmTests):
    family = "qwen2_5_vl"
    coarse = True


class TestQwen3Vl(VideoVlmTests):
    family = "qwen3_vl"
    coarse = True


class TestInternVl(VideoVlmTests):
    family = "internvl"


class TestSmolVlm(VideoVlmTests):
    family = "smolvlm"


class TestGemma3(VideoVlmTests):
    family = "gemma3"
