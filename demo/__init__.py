"""The embedded default: a synthetic tabletop world and a small trained PerceptionLM that counts in it.

Covers the generator of videos with annotations in Perception Test's own schema, the training of the small VLM, and
the run of every stage on them. It is the front door's example, and no other package imports it.

Importing the package imports none of its modules, so that it stays free of torch and transformers.
"""
