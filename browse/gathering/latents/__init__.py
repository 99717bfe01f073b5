"""The latents of an SAE: all of them as a table, and each with everything that its page shows.

    catalogue   the shard of all latents: columns to sort and filter by
    columns     which columns the page shows, and what they mean
    effects     what was found of one latent's edits
    neighbours  latents near a latent
    pages       the shards of single latents
    vocabulary  what a decoder direction writes into the vocabulary

Importing the package imports none of its modules.
"""
