"""Renting machines so that each is known, paid for on purpose, and given back.

`candidates`, `settling` and `ledger` decide, on data alone; `journal` remembers, in folder or bucket; the rest acts.
"""

from __future__ import annotations

from textnlp_fast.gpu.resources.manager import GPUResourceManager
from textnlp_fast.gpu.resources.requests import AcquireRequest, Budget

__all__ = ["AcquireRequest", "Budget", "GPUResourceManager"]
