"""Where the kernels run: on a GPU where there is one, else in Triton's interpreter."""

import os

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    # Read when a kernel is defined, so before the first import of one.
    os.environ["TRITON_INTERPRET"] = "1"
