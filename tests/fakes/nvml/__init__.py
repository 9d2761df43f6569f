"""A driver's library without a GPU: `mock.py` builds, loads and steers it."""
