"""From an SAE, a VLM and questions to what each edit of latents does to the answers.

    codes          latent activations of a video's visual tokens
    config         arguments, and operations as one word
    controls       other directions on the same tokens with the same norms
    effects        exact effects of one target and its controls
    interventions  edits of latents as changes of the residual
    opened         SAE and questions, checked to belong together
    reading        the tables of this package, as others read them
    reference      what is usual at the site
    run            the stage `steer`
    screen         first-order estimates of every latent's effect
    screening      one pass over all videos: answers and the screen
    summary        one row per target and operation, set against controls
    tables         schemas: targets, screen, effects, controls, summary
    targets        which latents are edited together, and why

Importing the package imports none of its modules, so that it stays free of torch and transformers.
"""
