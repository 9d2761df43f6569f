"""Addresses that the agent listens on, and the names that callers give for them."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from textnlp_fast.errors import InvalidInputError

__all__ = ["guarded", "host_name", "is_loopback", "listening", "resolved"]

_LEAST_TOKEN: Final = 16


def guarded(host: str, port: int, token: str | None) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The address of a server that asks for `token`, or that nobody else reaches.

    Raises InvalidInputError for a token that is too short or that no header carries, for a host that means no address,
    and for one that other machines reach where there is no token.
    """
    if token is not None and (len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable()):
        raise InvalidInputError(
            f"the token has fewer than {_LEAST_TOKEN} characters, or some that a header cannot carry",
            hint="Make one: openssl rand -hex 32",
        )
    family, address = resolved(host, port)
    if token is None and not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        raise InvalidInputError(
            f"other machines reach {host}, and there is no token",
            hint="Give --token-file, or listen on 127.0.0.1 alone.",
        )
    return family, address


def resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The address that a name means. Raises InvalidInputError if it means none."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise InvalidInputError(f"cannot listen on {host!r}, port {port}: {error}") from None
    return family, (str(address[0]), int(address[1]))


def listening(family: socket.AddressFamily, address: tuple[str, int], host: str) -> socket.socket:
    """A socket that listens there. Raises InvalidInputError where it cannot, as on a port that is taken."""
    try:
        return socket.create_server(address[:2], family=family, backlog=64)
    except OSError as error:
        raise InvalidInputError(
            f"cannot listen on {host}, port {address[1]}: {error.strerror or error}",
            hint="Does an agent run there already? Choose another port; 0 takes any that is free.",
        ) from None


def host_name(header: str) -> str:
    """The name of a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def is_loopback(name: str) -> bool:
    """Whether a name is an address that only this machine reaches."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
