"""The contract through Google's client."""

from __future__ import annotations

import pytest

from objectstore.contract import ObjectStoreContract
from textnlp_fast.objectstore import ObjectStore, open_store


class TestGcs(ObjectStoreContract):
    @pytest.fixture
    def store(self, gcs_bucket: str) -> ObjectStore:
        return open_store(f"gs://{gcs_bucket}/some/prefix")
