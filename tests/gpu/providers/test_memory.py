"""The cloud in memory keeps the contract: what is tested on it is tested on a provider."""

from __future__ import annotations

import pytest

from gpu.providers.contract_cases import ProviderContract
from gpu.providers.memory import MemoryHarness


@pytest.fixture
def harness() -> MemoryHarness:
    return MemoryHarness()


class TestContract(ProviderContract):
    pass
