"""From an SAE, a VLM and questions to what each edit of latents does to the answers.

    codes          latent activations of a video's visual tokens
    config         arguments, and operations as one word
    controls       other directions on the same tokens with the same norms
    edits/         what an edit is, and where it takes place
    effects        exact effects of one target and its controls
    evidence/      contrasts between subjects, summaries, claims
    held_out       the runs on the held-out videos, each target beside its controls
    mechanism/     doses, exchanges, single events, sets, counters, routes
    opened         SAE and questions, checked to belong together
    reading        the tables of this package, as others read them
    reference      what is usual at the site
    run            the stage `steer`
    screening      one pass over all videos: answers and the first-order screen
    screens/       estimates of every latent's effect, and passes over many edits
    selfcheck      what must hold before any effect is believed
    sweep          the exact ablation of every latent on the train videos
    tables         schemas of all tables
    targets        which latents are edited together, and why

Importing the package imports none of its modules, so that it stays free of torch and transformers.
"""
