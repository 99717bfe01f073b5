"""Latents against labels: scores, permutations, controls, false discovery rate."""
