"""From a run to the page that shows what it found and what it did not find, and to a data set of its tables.

    card           the card of the exported data set
    charts         the charts of the page
    claim_rows     claims in words, and effects by target and subject
    config         arguments
    dataset        `export`: the tables of a run as a data set that others open
    effect_verdict what edits do to the answers, in sentences
    mechanisms     what further analyses found of a latent, as sentences
    page           the stage `report`: one self-contained page
    pictures       pictures of latents, taken from features or newly drawn
    record         what a run holds, read through each package's `reading`
    reproduction   how to make a run again: commands and versions
    target_rows    association and effect of each target, side by side
    verdicts       what the tables say, in sentences
    wording        how numbers, targets and operations are written

Importing the package imports none of its modules, so that it stays free of torch and transformers.
"""
