"""Pictures of a latent's exemplars.

    media   the pictures that are written beside the tables
    render  one latent on one video

Importing the package imports none of its modules.
"""
