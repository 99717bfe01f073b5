"""Annotations as labels of tokens and frames."""
