"""The process that runs a stage, and its machine.

    device            what `auto` stands for: a device, a precision
    interruption      ending on a signal: cleanly, with a sentence and the right status
    library_versions  whether the installed libraries are new enough
    machine           processors and memory that this process may use
    provenance        versions and commit, for `config.json`
    ranks             this process among those that torchrun has started

Importing the package imports none of its modules.
"""
