"""Every artefact of a finished run, mutated and read again: see `tests.fuzz.__main__` for the command line."""
