"""Which addresses of a store may be used (TLS to other machines, no credentials in URLs), and whose word is believed.

``SSL_CERT_FILE`` names the authorities for every store. Obstore and our own sockets read it themselves; the providers'
clients know variables of their own only, so it is handed to them where none of those is set.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from textnlp_fast.errors import InvalidInputError

__all__ = ["DISBELIEVED", "authorities", "check_endpoint", "is_loopback"]

#: In what OpenSSL says of a server's certificate that it does not believe, whichever client repeats it.
DISBELIEVED: Final = "CERTIFICATE_VERIFY_FAILED"


def check_endpoint(endpoint: str, *, allow_http: bool) -> bool:
    """Whether the endpoint is plain HTTP, which only this machine may be unless the caller says otherwise.

    Raises ``InvalidInputError`` for what is no ``https://`` or ``http://`` URL, for one that carries credentials (they
    are not repeated in the message), and for plain HTTP to another machine.
    """
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname
        port = parts.port  # reading it checks it
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if "@" in endpoint or parts.query or parts.fragment:
        raise InvalidInputError(
            "the endpoint URL carries credentials or a query",
            hint="Take them out: credentials come from the environment, a profile or a role only.",
        )
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise InvalidInputError(
            f"{endpoint!r} is no endpoint URL", hint="Give https://host or https://host:port."
        )
    if parts.scheme == "https":
        return False
    if not allow_http and not is_loopback(host):
        raise InvalidInputError(
            f"{endpoint!r} would send weights and signatures in clear",
            hint="Use https://, or pass allow_http=True if the network is yours.",
        )
    return True


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine: ``localhost`` or a loopback address, written as one.

    No name is looked up: what a name means may change between the check and the use.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def authorities(*variables: str) -> str | None:
    """The file of authorities for a client that knows ``variables``; ``None`` leaves it to the client.

    ``InvalidInputError`` if what it will use is not there: some clients say nothing of that, and then believe nobody.
    """
    named = next((name for name in (*variables, "SSL_CERT_FILE") if os.environ.get(name)), None)
    if named is None:
        return None
    place = os.environ[named]
    if not Path(place).exists():
        raise InvalidInputError(
            f"{named} names {place}, which is not there",
            hint="Name a file of certificates in PEM, or take the variable out of the environment.",
        )
    return place if named == "SSL_CERT_FILE" else None
