"""From an activation store to a sparse autoencoder in a folder that SAELens loads.

Covers the shuffled loader, the architectures, the training step, checkpoints, export and the metrics on held-out
videos. The only package that imports `sae_lens`. It never looks at annotations.

- `run`: the `train` stage, which trains one SAE or a sweep, evaluates and compares
- `config`: its arguments; `options`: what `--options` takes; `device`: what `auto` stands for
- `settings`: all that follows from the arguments, the data and the processes, resolved once
- `resume`: where a training begins; `trainer`: one SAE in training, and the folder that it becomes
- `checkpoint`: a training's state on disk; `tensor_file`: tensors in safetensors, written atomically
- `run_log`: metrics.jsonl and Weights & Biases; `phases`: where the time goes
- `sae`: an SAE to load, encode and decode with; `opened`: one that belongs to a run's activations
- `reading`: what a training wrote, for other packages
- `batches`, `step`, `kernels`, `processes`: shuffled batches, a training step, the same in Triton, several processes
- `lens`, `quality`: SAELens's folder format; how good an SAE is, and the `evaluate` stage

Importing the package imports none of its modules, so that it stays free of torch and sae_lens.
"""
