"""From videos to an activation store: everything that touches a video file or a model's forward pass.

    artefact    a stage's folder: config, lock, begin and resume, tables, JSON, checksums
    data        annotations, questions, splits, units, and `video-sae check`
    download    `video-sae download`: Perception Test's files into one folder
    plan        `video-sae plan`: what a collection will take
    process     the process itself: signals, torchrun's ranks, processors, memory, versions
    store       the activation store on disk: writing, verifying, archiving
    tokens      where each visual token lies, and which are stored
    video       video files: finding, decoding, sampling
    vlm         video VLMs behind one interface
    arguments   rules for options: numbers in range, names of folders
    assignment  which process collects which videos
    config      arguments of collect, check, archive and verify
    drawing     scales, ticks and SVG drawings, for every chart
    errors      the one exception whose message is meant for the user
    pipeline    from videos to activations in host memory, overlapped
    printable   text from outside, made safe to show
    reading     the activation store as every later stage reads it
    run         the stage `collect`

Importing the package imports none of its modules, so that it stays free of torch and transformers.
It does not know about sparse autoencoders.
"""
