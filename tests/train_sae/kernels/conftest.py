"""Where the kernels run: on a GPU where there is one, else in Triton's interpreter."""

import importlib

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    importlib.import_module("tests.train_sae.kernels.interpreted")
