"""The local cache of Hugging Face's tools: snapshots become versions, and versions snapshots."""

from textnlp_fast.storage.hub.exporting import ExportReport, export_snapshot
from textnlp_fast.storage.hub.importing import ImportReport, import_snapshot

__all__ = ["ExportReport", "ImportReport", "export_snapshot", "import_snapshot"]
