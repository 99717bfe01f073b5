"""From an SAE, a store and annotations to a catalogue of what each latent responds to.

Covers sparse codes, the labels of visual tokens, association statistics on held-out videos, exemplars and their
pictures. It says what a latent goes along with; what a latent does to an answer is the business of `steer`.

Importing the package imports none of its modules, so that it stays free of torch.
"""
