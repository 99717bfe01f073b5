"""Every word the demo world can say; the tokenizer has one id per word."""

COLOURS = ("red", "green", "blue", "yellow", "purple")
SHAPES = ("ball", "cube", "cone", "star")
PLURALS = {"ball": "balls", "cube": "cubes", "cone": "cones", "star": "stars"}
PLACES = ("left", "middle", "right")
ACTIONS = {"lift": "lifting", "tap": "tapping", "cover": "covering"}

# The order fixes the ids, and so the shipped weights: add words at the end only.
_TEMPLATES = """
    user assistant system A B C A. B. C. 0 1 2 3 4 5 6 7 8 9
    Answer with the option's letter from given choices directly.
    How many toys appear in the video?
    times does person lift tap cover something in lamp turn on
    video? on? swap two cups do person
    The person uses multiple similar objects to play an occlusion game. such use?
    Where is ball hidden at end of video? mug?
    What colour lamp? toy that appears last?
    Which action person? something? one word. a
"""

WORDS: tuple[str, ...] = tuple(
    dict.fromkeys((*_TEMPLATES.split(), *COLOURS, *SHAPES, *PLURALS.values(), *PLACES, *ACTIONS, *ACTIONS.values()))
)
