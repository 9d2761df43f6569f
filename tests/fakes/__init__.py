"""Servers written for the tests, where no real one can run."""
