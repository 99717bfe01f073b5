"""From a VLM and questions to answers: what the unedited model says, and where it reads the video.

    answers     margins, accuracy and expected counts from the letters' logits
    baselines   what questions give away without the video
    byte_cache  a cache with a bound in bytes
    cases       one video with its questions, run up to a site; clips of the next ones are decoded ahead
    config      arguments of `video-sae profile`
    inference   intervals and tests over videos
    opened      a run with its model and questions, checked to belong together
    packing     many questions after one visual prefix
    profile     `video-sae profile`: where the answer reads the video
    questions   counting and non-counting questions, their options and prompts
    reading     the tables of this package, as others read them
    subjects    what a counting question counts
    tables      schemas: items, baselines, profile
    text_loss   loss over the text of a question and its answer
    unread      leaves out of a pass what nobody reads

Importing the package imports none of its modules, so that it stays free of torch and transformers.
"""
