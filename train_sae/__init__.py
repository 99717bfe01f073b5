"""From an activation store to a sparse autoencoder in a folder that SAELens loads.

Covers the shuffled loader, the architectures, the training step, checkpoints, export and the metrics on held-out
videos. The only package that imports `sae_lens`. It never looks at annotations.

Importing the package imports none of its modules, so that it stays free of torch and sae_lens.
"""
