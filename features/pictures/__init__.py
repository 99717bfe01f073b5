"""Pictures of a latent's exemplars."""
