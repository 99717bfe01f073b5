"""One training step: architectures, losses, selection, gradients, Adam.

    architectures  the weights of each architecture
    dense          losses of the architectures that activate any number of latents
    determinism    the same bits each time
    fastest        the fastest step for an architecture, a device and processes
    linear         matrix products by oneDNN
    memory         keeping freed memory on a CPU
    pursuit        how matching pursuit encodes
    reference      the step in plain autograd, the definition of correct
    schedule       the learning rate
    selection      which latents of a batch stay active
    settings       what a step does, and what happened in it
    sparse         the step of the TopK family with one dense product
    state          what a step changes
    update         what follows the gradients: projection, clipping, Adam, counters

Importing the package imports none of its modules.
"""
