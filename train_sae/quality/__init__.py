"""How good an SAE is.

    comparison  all finished SAEs of a run side by side
    config      arguments of `evaluate`
    evaluate    the metrics of an SAE on the held-out videos of its store
    metrics     reconstruction, sparsity and decoder coherence over a set of tokens
    splice      the `evaluate` stage: how the model answers with the residual replaced by its reconstruction

Importing the package imports none of its modules.
"""
