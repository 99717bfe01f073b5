"""From an SAE, a store and annotations to a catalogue of what each latent goes along with.

    association      latents against labels: scores, permutations, controls, names
    combinations     labels joined by AND, OR and NOT
    labels           annotations as labels of tokens, frames and videos
    pictures         pictures of exemplars
    activity         when each latent is active, and for how long
    catalogue        schemas of the tables, and the catalogue made from what was measured
    codes            the codes of every stored token, by token and by latent, as they are read
    codes_by_latent  the copy by latent, made in one pass
    codes_files      the files of both orders, and their seal
    codes_writer     writing a matrix of codes, row by row, resumable
    comparison       an SAE's names against those of a baseline
    config           arguments
    division         which process encodes which tokens and associates which latents
    encoding         from a store and an SAE to codes
    exemplars        the tokens that activate each latent most
    moments          exemplars as moments: when a latent rises and falls, from all of its activation
    reading          the tables of this package, as others read them
    run              the stage `features`

Importing the package imports none of its modules, so that it stays free of torch.
"""
