"""`video-sae plan`: tokens, bytes and hours of a collection before anything is spent.

    config    arguments of the command
    run       the stage: a plan's numbers and its table
    cost      operations, bytes and seconds of a clip, as arithmetic on a model's sizes
    model     the sizes of a model that decide what it costs
    families  a family's sizes and layout, read from its config.json
    files     where a model's config.json is found
    known     sizes of well-known models
    data      how many videos of which length and size there are
    probe     speeds measured on this machine

Only `probe` loads a model; everything else is arithmetic on what its config.json says.
"""
