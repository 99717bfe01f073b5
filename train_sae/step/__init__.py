"""One training step: architectures, losses, selection, gradients, Adam."""
