"""The training step of the TopK family on a GPU, in Triton.

    adam       Adam, with copies in another precision
    auxk       the loss that trains dead latents
    backward   gradients of both matrices by latent
    bounds     bounds that a given number of entries reach
    centre     x − b_dec, and how far the batch spreads
    chunks     maxima of chunks of a row, and lists of those that are read again
    dead       how many latents may be dead, without waiting for the device
    decode     reconstructions, the loss, gradients of the selected pre-activations
    jit        the decorator of the kernels, and the sizes of their blocks
    recording  whole steps as CUDA graphs
    select     which latents are active: TopK, BatchTopK
    step       the step, launch by launch

They are tested in Triton's interpreter, compiled ahead of time for an H100, and measured on an H200 (docs/log.md).

Written from the mathematics. Every result is a function of the input alone: nothing depends on the order in which
programs run, since floating-point sums have one program each and atomics count whole numbers only. Nothing here makes
the host wait for the device.

With `TRITON_INTERPRET=1` in the environment before the first import they run on CPU tensors, slowly.
"""
