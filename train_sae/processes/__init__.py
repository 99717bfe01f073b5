"""Training in several processes: over tokens or over latents.

    group        what a step asks of the other processes; a process alone
    parallel     the processes that torchrun started: data-parallel or latent-sharded
    sharded_sae  an SAE of whose latents each process has a share

Importing the package imports none of its modules.
"""
