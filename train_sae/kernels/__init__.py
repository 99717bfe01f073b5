"""Triton kernels for a CUDA step, and the functions that launch them. No step uses them yet, nor has a GPU run them.

Written from the mathematics. Every result is a function of the input alone: nothing depends on the order in which
programs run, since floating-point sums have one program each and atomics count whole numbers only. Nothing here makes
the host wait for the device.

With `TRITON_INTERPRET=1` in the environment before the first import they run on CPU tensors, slowly.
"""
