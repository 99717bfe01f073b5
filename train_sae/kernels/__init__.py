"""The training step of the TopK family on a GPU, in Triton: `step`, and the kernels that it launches.

They are tested in Triton's interpreter, compiled ahead of time for an H100, and measured on an H200 (docs/log.md).

Written from the mathematics. Every result is a function of the input alone: nothing depends on the order in which
programs run, since floating-point sums have one program each and atomics count whole numbers only. Nothing here makes
the host wait for the device.

With `TRITON_INTERPRET=1` in the environment before the first import they run on CPU tensors, slowly.
"""
