"""The synthetic tabletop world: what happens, how it looks, its annotations and questions."""
