"""The dashboard: pages that a browser draws from the API, without a build step and without anybody else's files."""

from textnlp_fast.service.dashboard.serving import mount

__all__ = ["mount"]
