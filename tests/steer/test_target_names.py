from report.wording import target_name
from steer.target_names import SET, is_set, set_label, set_name


def test_a_label_s_set_carries_its_label() -> None:
    assert set_label(set_name("red ball")) == "red ball"
    assert set_label(SET) == set_label("12") == ""


def test_sets_are_told_from_latents() -> None:
    assert [is_set(name) for name in (SET, set_name("setting: a table"), "12")] == [True, True, False]


def test_names_in_sentences() -> None:
    assert target_name("12", 1) == "latent 12"
    assert target_name(SET, 6) == "the set of 6 latents"
    assert target_name(set_name("cup"), 3) == "the 3 latents of “cup”"
