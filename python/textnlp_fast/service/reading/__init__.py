"""What the service knows of the repository: read once, kept as values, looked at again by what listings say."""

from textnlp_fast.service.reading.catalog import Catalog
from textnlp_fast.service.reading.snapshot import ModelView, Snapshot

__all__ = ["Catalog", "ModelView", "Snapshot"]
