"""Renting machines so that each is known, paid for on purpose, and given back.

`candidates`, `settling` and `ledger` decide, on data alone; `journal` remembers, in folder or bucket; the rest acts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textnlp_fast.gpu.resources.requests import AcquireRequest, Budget

if TYPE_CHECKING:
    from textnlp_fast.gpu.resources.manager import GPUResourceManager

__all__ = ["AcquireRequest", "Budget", "GPUResourceManager"]


def __getattr__(name: str) -> object:
    # Loaded with whoever acts: a description names a budget, and would wait for clouds and settings.
    if name == "GPUResourceManager":
        from textnlp_fast.gpu.resources.manager import GPUResourceManager  # noqa: PLC0415

        return GPUResourceManager
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
