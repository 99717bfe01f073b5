"""Visual tokens: where each lies in a clip, and which of them are stored.

    grid    each token's frame span and patch box
    choice  `--tokens` in one word
    subset  the stored tokens of a clip: all, those of some time steps, or those on annotated tracks

Nothing here knows a model: `collect.vlm.families` makes the grids.
"""
