"""From videos to an activation store: annotations, decoding, VLM adapters, token geometry and the Zarr store.

Covers everything that touches a video file or a vision-language model's forward pass, and owns the formats of the
activation store and of the `config.json` that every artefact folder holds. It does not know about sparse autoencoders.

Importing the package imports none of its modules, so that it stays free of torch and transformers.
"""
