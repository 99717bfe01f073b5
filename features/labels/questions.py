"""What is asked about a video, and what the answer is: labels of whole videos.

    asked "QUESTION"           the question is asked about the video
    "ANSWER" to "QUESTION"     its right answer

All that a question says is about a video as a whole, so the unit is the video. Where a question is not asked, its
answer is not known: such a video is neither positive nor negative for any answer. Answers that are withheld make no
label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from collect.data.perception_test import Video
from features.labels.unit_labels import MIN_COVER, Carrier


def question_names(video: Video) -> frozenset[str]:
    """All names of a video's questions and answers."""
    return frozenset((*(_asked(text) for text in _texts(video)), *_answers(video)))


def question_carriers(video: Video, names: Sequence[str]) -> list[Carrier]:
    """The video under each of its names, and a little under the answers to what is not asked about it.

    Args:
        video: with its questions.
        names: of all questions and answers that are labels.
    """
    own = question_names(video)
    known = tuple(_ending(text) for text in _texts(video))
    others = [name for name in names if _is_answer(name) and not name.endswith(known)]
    return [
        *(Carrier(names=(name,), degree=np.ones(1)) for name in names if name in own),
        *(Carrier(names=(name,), degree=np.full(1, 0.5 * MIN_COVER)) for name in others),
    ]


def _texts(video: Video) -> list[str]:
    return list(dict.fromkeys(_plain(question.question) for question in video.questions))


def _answers(video: Video) -> list[str]:
    return [
        f'"{_plain(question.options[question.answer_id])}"{_ending(_plain(question.question))}'
        for question in video.questions
        if 0 <= question.answer_id < len(question.options)
    ]


def _asked(text: str) -> str:
    return f'asked "{text}"'


def _ending(text: str) -> str:
    return f' to "{text}"'


def _is_answer(name: str) -> bool:
    return not name.startswith("asked ")


def _plain(text: str) -> str:
    return " ".join(text.split())
