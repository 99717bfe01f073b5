"""Tests of the package `steer`."""
