"""The process that runs a stage: signals, torchrun's ranks, the machine's processors and memory, library versions."""
