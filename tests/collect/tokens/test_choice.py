import pytest

from collect.errors import UserError
from collect.tokens.choice import TokenChoice


def test_words() -> None:
    assert TokenChoice.parse("all") == TokenChoice(every=1, on_tracks=False)
    assert TokenChoice.parse("every:12") == TokenChoice(every=12)
    assert TokenChoice.parse("tracks") == TokenChoice(on_tracks=True)


@pytest.mark.parametrize("text", ["every", "every:0", "every:x", "", "ALL", "tracks:2"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--tokens must be"):
        TokenChoice.parse(text)
