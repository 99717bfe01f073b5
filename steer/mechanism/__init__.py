"""How a latent does what it does: doses, exchanges, single events, sets, counters, routes.

    attention    attention cut between tokens, or kept as it was
    counters     latents that run with the number of events so far, and what an exchange of their state does
    doses        the expected count as a latent grows from nothing to several times its size
    events       one event taken out, and one put in where there is none
    flow         by which routes the answer reads a latent
    matched      a subject's videos, and the mean effect of edits on its questions
    occurrences  when what a subject counts happens, by the annotations
    rivals       what anyone could do without the latent, at equal norms
    runner       which analyses run for which latents, resumable
    sets         smallest sets that destroy or restore a task, and pairs that stand in for each other
    swaps        a latent's activations exchanged with a video of another count
    tables       schemas of these tables

Importing the package imports none of its modules, so that it stays free of torch and transformers.
"""
