"""Every word the demo world can say; the tokenizer has one id a word."""

COLOURS = ("red", "green", "blue", "yellow", "purple")
SHAPES = ("ball", "cube", "cone", "star")
PLURALS = {"ball": "balls", "cube": "cubes", "cone": "cones", "star": "stars"}
PLACES = ("left", "middle", "right")
ACTIONS = {"lift": "lifting", "tap": "tapping", "cover": "covering"}

_TEMPLATE_WORDS = (
    "user",
    "assistant",
    "system",
    *("A", "B", "C", "A.", "B.", "C."),
    *(str(n) for n in range(10)),
    *"Answer with the option's letter from given choices directly.".split(),
    *"How many toys appear in the video?".split(),
    *"times does person lift tap cover something in lamp turn on".split(),
    *"video? on? swap two cups do person".split(),
    *"The person uses multiple similar objects to play an occlusion game. such use?".split(),
    *"Where is ball hidden at end of video? mug?".split(),
    *"What colour lamp? toy that appears last?".split(),
    *"Which action person? something? one word. a".split(),
)

WORDS: tuple[str, ...] = tuple(
    dict.fromkeys((*_TEMPLATE_WORDS, *COLOURS, *SHAPES, *PLURALS.values(), *PLACES, *ACTIONS, *ACTIONS.values()))
)
