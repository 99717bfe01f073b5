"""From an activation store to a sparse autoencoder in a folder that SAELens loads.

Covers the shuffled loader, the architectures, the training step, checkpoints, export and the metrics on held-out
videos. The only package that imports `sae_lens`. It never looks at annotations.

    batches      shuffled, normalised batches of a store
    checkpoint   a training's state on disk
    config       arguments of `train`
    kernels      the training step in Triton
    lens         SAELens's folder format
    opened       an SAE that belongs to a run's activations
    options      what `--options` takes
    phases       where the time of a training goes
    processes    training in several processes
    quality      how good an SAE is, and the `evaluate` stage
    reading      what a training wrote, for other packages
    resume       where the training of an SAE begins
    run          the `train` stage: one SAE or a sweep, trained, evaluated, compared
    run_log      metrics.jsonl and Weights & Biases
    sae          an SAE to load, encode and decode with
    settings     all that follows from the arguments, the data and the processes, resolved once
    step         one training step
    tensor_file  tensors in safetensors, written atomically
    trainer      one SAE in training, and the folder that it becomes

Importing the package imports none of its modules, so that it stays free of torch and sae_lens.
"""
