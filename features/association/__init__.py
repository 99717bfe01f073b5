"""Latents against labels, on train videos to choose and on held-out videos to judge.

    associate     the whole of it: pairs chosen, judged and named
    controls      what directions that were never trained would score
    explanation   how much of a latent each label explains; all labels compete on the same tokens
    inference     bootstrap intervals, false discovery rate
    judgement     effect sizes, intervals and p-values of the chosen pairs
    label_scores  AUROC of many latents and labels at once
    loans         labels that other videos' annotations would give
    naming        which latents get a name, and why others do not
    pair_effects  effect sizes of single pairs
    permutation   the permutation test, with early stopping
    ranks         ranks of activations among all held-out units
    runs          runs of equal neighbours, which ranks are made of
    selection     which pairs are tested
    split_units   the units of one space and split, with their labels
    whole_videos  labels of whole videos: with which latents they are tested

Importing the package imports none of its modules.
"""
