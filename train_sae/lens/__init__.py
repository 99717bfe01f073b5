"""SAELens's folder format, read and written.

- `config`: what cfg.json says, whichever release wrote it
- `folding`: weights, with the settings folded into them
- `token_norm`: normalisations that depend on each token
- `hook_names`: other libraries' names of hook sites
- `module`: SAEs that only SAELens's own class encodes
- `export`: from trained weights to a folder
"""
