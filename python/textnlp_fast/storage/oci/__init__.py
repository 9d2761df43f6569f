"""Versions as OCI artifacts, laid out as ModelPack has it."""

from textnlp_fast.storage.oci.exporting import OciReport, export_oci

__all__ = ["OciReport", "export_oci"]
