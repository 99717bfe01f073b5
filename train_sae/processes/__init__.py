"""Training in several processes: over tokens or over latents.

    group        what a step asks of the other processes; a single process
    parallel     the processes that torchrun started: data-parallel or latent-sharded
    sharded_sae  an SAE whose latents are divided among the processes

Importing the package imports none of its modules.
"""
