"""How good an SAE is.

- `metrics`: reconstruction, sparsity and decoder coherence over a set of tokens
- `evaluate`: the same on the held-out videos that an SAE was not trained on
- `comparison`: all finished SAEs of a run side by side
- `splice`: the `evaluate` stage: how the model answers with the reconstruction in the residual's place
- `config`: its arguments
"""
