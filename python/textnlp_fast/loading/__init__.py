"""Brings weights into the memory of a process."""

from __future__ import annotations

from textnlp_fast.loading.swapping import SwapReport, swap

__all__ = ["SwapReport", "swap"]
