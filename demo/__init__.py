"""The embedded default: a small synthetic world, and a tiny trained PerceptionLM that counts in it.

    vlm     the model: its network, training and held-out accuracy
    world   the world: what happens, how it looks, its annotations and questions
    config  arguments
    run     every stage, one after the other

Importing the package imports none of its modules.
"""
