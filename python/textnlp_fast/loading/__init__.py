"""Brings weights into the memory of a process."""

from __future__ import annotations

from textnlp_fast.loading.cache import LoadCache
from textnlp_fast.loading.layouts import layout_of_rank, slices_of_rank
from textnlp_fast.loading.sliced import Layout, Part
from textnlp_fast.loading.streaming import load
from textnlp_fast.loading.swapping import SwapReport, swap
from textnlp_fast.tensors.slices import Slice

__all__ = [
    "Layout",
    "LoadCache",
    "Part",
    "Slice",
    "SwapReport",
    "layout_of_rank",
    "load",
    "slices_of_rank",
    "swap",
]
