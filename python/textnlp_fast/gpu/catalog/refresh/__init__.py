"""New prices from the clouds' own price lists: read, checked, and written over the user's refreshed file."""

from __future__ import annotations

from textnlp_fast.gpu.catalog.refresh.refreshing import PROVIDERS, RefreshReport, refresh

__all__ = ["PROVIDERS", "RefreshReport", "refresh"]
