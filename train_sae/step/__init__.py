"""One training step: architectures, losses, selection, gradients, Adam.

- `fastest`: the step by the fastest way that architecture, device and processes have
- `reference`: the step in plain autograd, the definition of correct
- `dense`: losses of the architectures that activate any number of latents
- `sparse`: the step of the TopK family with one dense product
- `selection`: which latents of a batch stay active
- `update`: what follows the gradients: projection, clipping, Adam, counters
- `settings`: what a step does, and what happened in it
- `state`: what a step changes
- `architectures`: the weights of each architecture
- `schedule`: the learning rate
- `linear`: matrix products by oneDNN
- `pursuit`: how matching pursuit encodes
- `memory`: freed memory kept on a CPU
- `determinism`: the same bits each time
"""
