"""Estimates of what the ablation of every latent does, and the passes that they and exact runs share.

    agreement  how far each screen can be trusted: screens.parquet
    budget     jobs in order, within a time, shared by processes
    by_video   one screen of all latents, video by video
    cost       which screen costs least
    estimates  what each screen says of every latent in the videos that it reached
    gradient   first order at the site: one forward, one backward
    masked     many latents ablated at once, taken apart by a sparse regression
    passes     many small edits of one video: whole effects, and direct ones
    plan       what is run exactly, and in which order
    prefix     the unedited prefix of a video, and passes that go on from it

Importing the package imports none of its modules.
"""
