"""SAELens's folder format, read and written.

    config      what cfg.json says, whichever release wrote it
    export      from trained weights to a folder
    folding     weights with the settings folded into them
    hook_names  other libraries' names of hook sites
    module      SAEs that only SAELens's own class can encode
    token_norm  normalisations that depend on each token

Importing the package imports none of its modules.
"""
