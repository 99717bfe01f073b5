"""Labels joined by AND, OR and NOT that explain a latent better than each of them does.

    combine      the best combination of every latent, found on train videos and measured on held-out ones
    formulas     what a combination is: which tokens have it, how it is written, and what its parts are
    search       the beam search on the train videos
    tokens       the labels of every token of a split, and sums over them

Importing the package imports none of its modules.
"""
