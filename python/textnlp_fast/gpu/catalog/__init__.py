"""The catalogue: which machines with GPUs the clouds rent, where, and at what price.

Facts that ship with the package, overlaid by what `textnlp-fast gpu catalog refresh` last fetched.
"""

from __future__ import annotations

from textnlp_fast.gpu.catalog.catalog import Catalog, refreshed_path

__all__ = ["Catalog", "refreshed_path"]
