"""TLS in front of servers that have none: nginx, under a certificate of an authority that the tests make."""

from __future__ import annotations

import datetime
import importlib
import ipaddress
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from free_ports import free_port

__all__ = ["Authority", "authority", "believe", "stranger", "tls_front"]

_VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    listen 127.0.0.2:{port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {certificate};
    client_max_body_size 0;
    underscores_in_headers on;
    location / {{
      proxy_pass {upstream};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-Proto https;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_next_upstream off;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Authority:
    """Who vouches for servers: ``path`` is its own certificate, ``server`` one of ``localhost`` with its key."""

    path: Path
    server: Path


def _issue(folder: Path) -> Authority:
    x509: Any = pytest.importorskip("cryptography.x509", reason="needs cryptography")
    hashes = importlib.import_module("cryptography.hazmat.primitives.hashes")
    serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
    ec = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ec")
    now = datetime.datetime.now(datetime.timezone.utc)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        for name in ("an authority of tests", "a server of tests")
    ]
    certificates = []
    for number, (key, name) in enumerate(zip(keys, names, strict=True)):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(names[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=number == 0, path_length=None), critical=True)
        )
        if number:
            addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        certificates.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key_text = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "authority.pem").write_bytes(certificates[0])
    (folder / "server.pem").write_bytes(key_text + certificates[1])
    return Authority(folder / "authority.pem", folder / "server.pem")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whose word the servers behind `tls_front` have."""
    return _issue(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority, of the same name."""
    return _issue(tmp_path_factory.mktemp("stranger"))


def believe(path: Path | None, patched: pytest.MonkeyPatch) -> None:
    """Lets this process, and who it starts, believe the authorities of a file alone, or those of the machine."""
    for name in _VARIABLES:
        patched.delenv(name, raising=False)
    if path is not None:
        patched.setenv("SSL_CERT_FILE", str(path))


@contextmanager
def tls_front(upstream: str, authority: Authority, folder: Path) -> Iterator[str]:
    """The ``https://`` endpoint that leads to ``upstream``; skips without nginx.

    At 127.0.0.2 it listens, too: an address that the certificate is not for.
    """
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        pytest.skip("no nginx: apt-get install nginx-light")
    host, _, path = upstream.removeprefix("http://").partition("/")
    folder.mkdir()
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        _CONFIG.format(folder=folder, port=port, certificate=authority.server, upstream=f"http://{host}")
    )
    process = subprocess.Popen([nginx, "-p", folder, "-c", config], stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_up(process, port)
        yield f"https://localhost:{port}/{path}".rstrip("/")
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _wait_until_up(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    process.kill()
    raise RuntimeError(f"nginx did not come up: {process.communicate()[1]}")
