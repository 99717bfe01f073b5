"""Numbers that options name, each worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect.data.counting import option_number

NUMBERS = {
    "3": 3,
    " 3. ": 3,
    "Three.": 3,
    "three cups": 3,
    "3 red cups": 3,
    "3 times": 3,
    "one of them": 1,
    "twenty-one": 21,
    "twenty one": 21,
    "1,000": 1000,
    "a dozen": 12,
    "exactly 2": 2,
    "only one": 1,
    "3 in total": 3,
    "once": 1,
    "twice": 2,
    "never": 0,
    "none": 0,
    "None of them": 0,
    "No cups": 0,
    "no red cups": 0,
    "not at all": 0,
    # bounds: the nearest number that lies within
    "4 or more": 4,
    "4+": 4,
    "five +": 5,
    "4 or more times": 4,
    "3 cups or more": 3,
    "at least 4": 4,
    "≥ 4": 4,
    "more than 5": 6,
    "more than twice": 3,
    "> 5": 6,
    "over 5": 6,
    "less than 2": 1,
    "Fewer than three": 2,
    "fewer than one": 0,
    "<2": 1,
    "2 or less": 2,
    "two or fewer": 2,
    "up to 3": 3,
    "at most three": 3,
    "no more than 3": 3,
}
NOT_NUMBERS = (
    *("yes", "no", "", "-1", "minus 2", "1.5", "one and a half", "half", "10%", "1st", "first"),
    *("one or two", "3 or 4", "2-3", "2 to 3", "two to three", "between 2 and 4", "one by one", "1 & 2"),
    *("two hundred", "fewer than zero", "number 3", "no one", "about 3", "red", "cup 1 and cup 2"),
)


@pytest.mark.parametrize(("option", "number"), NUMBERS.items())
def test_options_that_name_a_number(option: str, number: int) -> None:
    assert option_number(option) == float(number)


@pytest.mark.parametrize("option", NOT_NUMBERS)
def test_options_that_do_not(option: str) -> None:
    assert option_number(option) is None


@given(number=st.integers(0, 10**6), template=st.sampled_from(["{}", "{} times", "at least {}", "{} or more", "{}+"]))
def test_any_number_in_digits(number: int, template: str) -> None:
    assert option_number(template.format(number)) == number


WORDS = (
    *("no", "at", "least", "more", "than", "or", "fewer", "two", "three", "twenty", "4", "10", "+", "times", "cups"),
    *("of", "half", "-", "<", "2,", ".", "none", "½", "٣", "чашки"),
)


@given(text=st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join))
def test_whatever_is_written_is_a_number_from_0_or_none(text: str) -> None:
    number = option_number(text)
    assert number is None or (number >= 0 and number == int(number))


@given(low=st.integers(1, 50), step=st.integers(1, 5))
def test_options_that_divide_the_numbers_are_told_apart(low: int, step: int) -> None:
    options = (f"less than {low}", f"{low}", f"more than {low + step - 1}")
    numbers = [option_number(option) for option in options]
    assert numbers == sorted({n for n in numbers if n is not None})
