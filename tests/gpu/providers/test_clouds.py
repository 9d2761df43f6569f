"""Google Cloud and Azure, by the contract's cases. What is each one's own is in test_gcp.py and test_azure.py."""

from __future__ import annotations

import pytest

from gpu.providers.contract_cases import ProviderContract
from gpu.providers.harness import Harness


class TestGcp(ProviderContract):
    @pytest.fixture
    def harness(self, gcp: Harness) -> Harness:
        return gcp


class TestAzure(ProviderContract):
    @pytest.fixture
    def harness(self, azure: Harness) -> Harness:
        return azure
