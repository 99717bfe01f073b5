"""Batches of activations from a store, shuffled: a pure function of the seed and the step.

    loader         batches, read ahead
    normalisation  what is done to the input, measured and folded into the weights at export
    order          which of them comes when
    shard_reader   rows directly from shard files into their places
    token_set      which rows are trained on: whole videos on one side of the split, and filters within them

Importing the package imports none of its modules.
"""
