"""Store every version of a model in your own bucket, move only what changed."""

from textnlp_fast._native import __version__

__all__ = ["__version__"]
