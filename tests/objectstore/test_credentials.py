"""Whose credentials are used: those that the provider's default chain finds, and no others."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from servers import AzureServer
from textnlp_fast.errors import AuthenticationError, InvalidInputError, MissingPackageError
from textnlp_fast.objectstore import open_store

# --- Google -------------------------------------------------------------------------------------------------


@pytest.fixture
def strict(gcs_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A fake that lets in only who has a token of its own; the machine has no credentials."""
    from fakes.gcs import GcsFake  # noqa: PLC0415

    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with GcsFake(require_tokens=True) as fake:
        yield fake


def test_google_without_credentials_says_how_to_get_some(strict: Any) -> None:
    with pytest.raises(AuthenticationError, match="no Google credentials") as caught:
        open_store("gs://bucket", endpoint_url=strict.endpoint_url)
    assert "gcloud auth application-default login" in caught.value.hint


def test_a_service_account_gets_a_token_that_may_read_and_write_and_no_more(
    strict: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "test",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "pusher@test.iam.gserviceaccount.com",
        "token_uri": f"{strict.endpoint_url}/token",
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    store = open_store(f"gs://{strict.make_bucket()}", endpoint_url=strict.endpoint_url)
    version = store.compare_and_swap("a", b"1", None)
    assert store.get_versioned("a") == (b"1", version)
    (asked,) = strict.token_requests
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    claims = importlib.import_module("google.auth.jwt").decode(asked["assertion"], certs=public, verify=False)
    assert claims["scope"] == "https://www.googleapis.com/auth/devstorage.read_write"


def test_a_workload_shows_its_own_platforms_token(
    strict: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "subject").write_text("token of the platform")
    federation = {
        "type": "external_account",
        # With a workload pool the client also asks what the project is called, of a server that is not here.
        "audience": "//iam.googleapis.com/locations/global/workforcePools/p/providers/k",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{strict.endpoint_url}/token",
        "credential_source": {"file": str(tmp_path / "subject")},
    }
    (tmp_path / "federation.json").write_text(json.dumps(federation))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "federation.json"))
    store = open_store(f"gs://{strict.make_bucket()}", endpoint_url=strict.endpoint_url)
    store.create("a", b"1")
    assert [asked["subject_token"] for asked in strict.token_requests] == ["token of the platform"]


def test_a_token_that_is_not_taken_is_refused_credentials(
    strict: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", strict.endpoint_url)
    store = open_store(f"gs://{strict.make_bucket()}", retries=0)
    for call in (lambda: store.get("a"), lambda: store.create("a", b"1"), lambda: list(store.list())):
        with pytest.raises(AuthenticationError, match=r"gs://") as caught:
            call()
        assert "gcloud" in caught.value.hint


def test_googles_emulator_variable_is_checked_like_any_endpoint(
    gcs_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for endpoint in ("http://10.0.0.1:9", "10.0.0.1:9", "http://user:secret@127.0.0.1:9"):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
        with pytest.raises(InvalidInputError):
            open_store("gs://bucket")


def test_a_file_that_holds_no_credentials_is_refused(
    strict: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))
    for content in ("", "{}", '{"type": "service_account"}', '{"type": "of tomorrow"}'):
        (tmp_path / "credentials.json").write_text(content)
        with pytest.raises(AuthenticationError):
            open_store("gs://bucket", endpoint_url=strict.endpoint_url)


def test_without_googles_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without_google(name: str, *rest: Any) -> Any:
        if name.startswith("google"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without_google)
    with pytest.raises(MissingPackageError) as caught:
        open_store("gs://bucket")
    assert "textnlp-fast[gcp]" in caught.value.hint


def test_a_providers_client_is_imported_when_its_bucket_is_opened(tmp_path: Path) -> None:
    script = """
import sys
from textnlp_fast.objectstore import open_store
open_store(sys.argv[1]).put_object("a", b"1")
open_store("memory://x").put_object("a", b"1")
print(sorted({name.split(".")[0] for name in sys.modules} & {"google", "azure", "boto3", "botocore", "requests"}))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    # A .pth file of Google's packages may make the empty namespace at start-up.
    assert ran.stdout.strip() in {"[]", "['google']"}


# --- Azure --------------------------------------------------------------------------------------------------


def test_azure_by_connection_string(
    azure_server: AzureServer, azure_container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, key = os.environ["AZURE_STORAGE_ACCOUNT_NAME"], os.environ["AZURE_STORAGE_ACCOUNT_KEY"]
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    with pytest.raises(InvalidInputError, match="storage account") as caught:
        open_store(f"az://{azure_container}")
    assert "AZURE_STORAGE_ACCOUNT_NAME" in caught.value.hint
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING",
        f"DefaultEndpointsProtocol=http;AccountName={name};AccountKey={key};BlobEndpoint={azure_server.endpoint_url};",
    )
    store = open_store(f"az://{azure_container}")
    version = store.compare_and_swap("a", b"1", None)
    assert store.get_versioned("a") == (b"1", version)
    for text in (
        "UseDevelopmentStorage=true",
        f"DefaultEndpointsProtocol=http;AccountName={name};AccountKey={key}",
    ):
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
        with pytest.raises(InvalidInputError, match="plain HTTP"):
            open_store(f"az://{azure_container}")


def test_azure_by_shared_access_signature(
    azure_server: AzureServer, azure_container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = pytest.importorskip("azure.storage.blob")
    datetime = importlib.import_module("datetime")
    key = os.environ["AZURE_STORAGE_ACCOUNT_KEY"]
    sas = blob.generate_container_sas(
        os.environ["AZURE_STORAGE_ACCOUNT_NAME"],
        azure_container,
        account_key=key,
        permission="rl",
        expiry=datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1),
    )
    open_store(f"az://{azure_container}", endpoint_url=azure_server.endpoint_url).put_object("a", b"x")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", sas)
    reader = open_store(f"az://{azure_container}", endpoint_url=azure_server.endpoint_url, retries=0)
    assert reader.get("a") == b"x"
    with pytest.raises(AuthenticationError) as caught:
        reader.put_object("a", b"y")
    assert sas.rpartition("sig=")[2] not in str(caught.value)


def test_a_wrong_key_is_refused_and_not_repeated(
    azure_server: AzureServer, azure_container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "half of a ke")
    with pytest.raises(AuthenticationError, match="not base64") as caught:
        open_store(f"az://{azure_container}", endpoint_url=azure_server.endpoint_url)
    assert "half of" not in str(caught.value)
    wrong = "d3Jvbmch" * 8
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", wrong)
    store = open_store(f"az://{azure_container}", endpoint_url=azure_server.endpoint_url, retries=0)
    with pytest.raises(AuthenticationError) as caught:
        store.create("a", b"x")
    assert "az login" in caught.value.hint
    assert wrong not in str(caught.value)


def test_azures_endpoint_variables_are_checked_and_its_switches_do_not_count(
    azure_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "http://blobs.example")
            with pytest.raises(InvalidInputError, match="in clear"):
                open_store("az://container")
    for switch in ("AZURE_STORAGE_USE_EMULATOR", "AZURE_SKIP_SIGNATURE", "AZURE_ALLOW_HTTP"):
        monkeypatch.setenv(switch, "true")
    with _Recorder() as azure:
        open_store("az://container", endpoint_url=f"{azure.url}/account").put_object("a", b"x")
    assert [path for path, _ in azure.seen] == ["/account/container/a"]
    assert azure.seen[0][1].startswith("SharedKey devstoreaccount1:")


@pytest.mark.parametrize("chain", ["obstore", "azure-identity"])
def test_the_machines_managed_identity_signs_where_no_key_is_given(
    azure_environment: None, monkeypatch: pytest.MonkeyPatch, chain: str
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    if chain == "azure-identity":
        pytest.importorskip("azure.identity", reason="needs azure-identity")
    else:
        real = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: None if name == "azure" else real(name, *rest)
        )
    with _Recorder() as azure:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure.url}/identity")
        monkeypatch.setenv("IDENTITY_HEADER", "secret of the host")
        monkeypatch.setenv("AZURE_IDENTITY_ENDPOINT", f"{azure.url}/identity")
        open_store("az://container", endpoint_url=f"{azure.url}/account", retries=0).put_object("a", b"x")
    paths = [path for path, _ in azure.seen]
    assert paths[0].startswith("/identity?") and "storage.azure.com" in paths[0]
    assert azure.seen[-1] == ("/account/container/a", "Bearer a token of the machine")


class _Recorder:
    """Answers as an identity endpoint and as a store that takes everything; notes who signed how."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                recorder.seen.append((self.path, self.headers.get("Authorization", "")))
                token = {
                    **{
                        "access_token": "a token of the machine",
                        "expires_on": "4102444800",
                        "expires_in": "3600",
                    },
                    **{"token_type": "Bearer", "resource": "https://storage.azure.com"},
                }
                body = json.dumps(token).encode() if self.path.startswith("/identity") else b""
                self.send_response(200 if body else 201)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Type", "application/json")
                self.send_header("ETag", '"0x1"')
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = _answer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> _Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
