"""Perception Test and folders like it: annotations, questions, splits, units, and `video-sae check`."""
