"""From effects per item to what may be said.

    claims     what the held-out effects allow to say, by stated rules
    contrasts  effects on one subject's questions, set against the others
    mechanisms what doses, events, swaps and routes allow to say of a latent
    stopping   when further controls would change nothing
    summary    one row per latent or target and subject, set against controls

Importing the package imports none of its modules, so that it stays free of torch and transformers.
"""
