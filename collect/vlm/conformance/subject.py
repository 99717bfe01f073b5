"""What is tested: the model, a clip, and the clip's prefix."""

import pytest

from collect.video.decode import Clip
from collect.vlm import Prefix, VideoVlm
from collect.vlm.conformance.clips import clip_of, noise

QUESTIONS = ("How many toys appear in the video?", "Where is the ball hidden at the end of the video?\nA. left")
N_FRAMES = 4


class Subject:
    """Fixtures of the suite. Whoever runs it provides the fixture `vlm`, which is the model."""

    frames_per_step: int = 1
    """How many frames become one time step of tokens."""

    @pytest.fixture
    def clip(self) -> Clip:
        return clip_of([noise(48, 64, seed=i) for i in range(N_FRAMES)])

    @pytest.fixture
    def prefix(self, vlm: VideoVlm, clip: Clip) -> Prefix:
        return vlm.prefix(clip)
