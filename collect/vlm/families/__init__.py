"""One adapter per family of video VLMs.

    registry       which families there are, and adding one from outside
    perception_lm  PerceptionLM
    llava          LLaVA-OneVision and LLaVA-NeXT-Video
    qwen           Qwen2.5-VL and Qwen3-VL
    internvl       InternVL
    smolvlm        SmolVLM
    gemma3         Gemma 3, whose frames are images

Each is a `collect.vlm.VlmFamily`; `docs/models.md` shows how one is added.
"""
