"""Azurite, Microsoft's own emulator of Blob Storage, as a real server process.

It comes from npm: ``npm install azurite`` in ``build/azurite``, or anywhere on the PATH; ``TEXTNLP_FAST_AZURITE`` names
the command otherwise.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servers.process import shared_process

__all__ = ["AzureServer", "azure_container", "azure_environment", "azure_server"]

_INSTALLED = Path(__file__).parents[2] / "build" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
# The account and the key that every copy of Azurite has; they open nothing else.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class AzureServer:
    """A running server. ``endpoint_url`` is the account's, on loopback."""

    endpoint_url: str

    def client(self) -> Any:
        """Microsoft's own client for the account."""
        blob = pytest.importorskip("azure.storage.blob", reason="needs azure-storage-blob")
        return blob.BlobServiceClient(
            self.endpoint_url, credential={"account_name": ACCOUNT, "account_key": KEY}, retry_total=3
        )

    def make_container(self) -> str:
        """A new, empty container."""
        name = f"test-{uuid.uuid4().hex[:16]}"
        with self.client() as client:
            client.create_container(name)
        return name


def azurite_command() -> str | None:
    """Where Azurite's blob service is, if it is anywhere."""
    named = os.environ.get("TEXTNLP_FAST_AZURITE")
    return named or (str(_INSTALLED) if _INSTALLED.exists() else shutil.which("azurite-blob"))


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    """One server for the whole run; tests keep apart by taking a container each."""
    found = azurite_command()
    if found is None or shutil.which("node") is None:
        pytest.skip("no azurite: npm install --prefix build/azurite azurite")
    if importlib.util.find_spec("azure") is None:
        pytest.skip("containers are made with Microsoft's client: pip install azure-storage-blob")

    def command(port: int, _: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        return [
            *(found, "--blobHost", "127.0.0.1", "--blobPort", str(port)),
            *("--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"),
        ], {}

    with shared_process("azurite", tmp_path_factory, command) as url:
        yield AzureServer(f"{url}/{ACCOUNT}")


@pytest.fixture
def azure_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account and its key, and nothing of the machine's own set-up."""
    for name in [name for name in os.environ if name.startswith(("AZURE_", "IDENTITY_", "MSI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)


@pytest.fixture
def azure_container(azure_server: AzureServer, azure_environment: None) -> str:
    """The name of a new container on ``azure_server``, with the account's key set in the environment."""
    return azure_server.make_container()
