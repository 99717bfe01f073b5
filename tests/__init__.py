"""Tests, one module for each source module; none uses a network."""
