"""Tests of the package `train_sae`."""
