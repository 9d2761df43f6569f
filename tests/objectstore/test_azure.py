"""The contract on Azurite."""

from __future__ import annotations

import pytest

from objectstore.contract import ObjectStoreContract
from servers import AzureServer
from textnlp_fast.objectstore import ObjectStore, open_store


class TestAzure(ObjectStoreContract):
    @pytest.fixture
    def store(self, azure_server: AzureServer, azure_container: str) -> ObjectStore:
        return open_store(f"az://{azure_container}/some/prefix", endpoint_url=azure_server.endpoint_url)
