"""Who is spoken to: a server that cannot prove its name gets no credentials and no weights."""

from __future__ import annotations

import datetime
import importlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from textnlp_fast.errors import StorageUnavailableError
from textnlp_fast.objectstore import open_store


@pytest.fixture(scope="module")
def impostor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """An HTTPS server whose certificate nobody vouches for, and what was asked of it."""
    x509 = pytest.importorskip("cryptography.x509", reason="needs cryptography")
    hashes = importlib.import_module("cryptography.hazmat.primitives.hashes")
    serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
    ec = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ec")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET = do_PUT

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Handshakes fail here: that is what is tested."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("s3://bucket", "aws_environment"),
        ("az://container", "azure_environment"),
        ("gs://bucket", "gcs_environment"),
    ],
)
def test_a_certificate_that_nobody_vouches_for_is_refused(
    impostor: tuple[str, list[str]], url: str, environment: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(environment)
    endpoint, asked = impostor
    for allow_http in (False, True):  # which is about plain HTTP, and not about whom to believe
        store = open_store(url, endpoint_url=endpoint, allow_http=allow_http, retries=0, timeout_s=20)
        for write in (
            lambda store=store: store.put_object("a", b"x"),
            lambda store=store: store.create("a", b"x"),
        ):
            with pytest.raises(StorageUnavailableError):
                write()
    assert asked == []
