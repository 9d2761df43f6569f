"""The application on a socket, until the process is told to end: uvicorn, with what it must be told."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from textnlp_fast.errors import InternalError, InvalidInputError
from textnlp_fast.service.config import ServiceConfig

__all__ = ["Tls", "serve"]

_MOST_CONNECTIONS: Final = 1000
"""Beside event streams, which have a limit of their own."""
_MOST_HEAD_BYTES: Final = 64 << 10
_IDLE_S: Final = 30
_GRACE_S: Final = 20
_LAST_CALLS_S: Final = 3.0
# A thread that computes hands over this often: an answer that is ready waits no longer for it.
_SWITCH_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of the server's certificate and its key, PEM."""

    certificate: Path
    key: Path


class _Server(uvicorn.Server):
    """Tells the application first that it is to end, so that streams end and nobody waits for them."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._ready = ready
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not remembered, as uvicorn would: it would raise the signal again once all has ended well.
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)


def serve(
    app: FastAPI,
    config: ServiceConfig,
    *,
    tls: Tls | None = None,
    trusted_proxies: Sequence[str] = (),
    ready: Callable[[str], None] = lambda _address: None,
) -> bool:
    """Serves until SIGTERM or SIGINT; then streams end, answers under way are finished, and jobs are handed over.

    `ready` hears the address once it listens. `trusted_proxies` are addresses whose X-Forwarded-For is believed.

    Returns False if calls to the store are left that did not end within some seconds: the interpreter would wait for
    their threads; a process that ends at once ends them as a kill would. Raises InvalidInputError for an address that
    cannot be listened on, or a certificate that cannot be read.
    """
    listener = _listener(config.host, config.port)
    settings = uvicorn.Config(
        app,
        http="h11",  # it bounds the head of a request
        h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        limit_concurrency=_MOST_CONNECTIONS + config.most_streams,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=tls.certificate if tls is not None else None,
        ssl_keyfile=tls.key if tls is not None else None,
    )
    try:
        settings.load()
    except OSError as error:  # also what ssl says of files
        listener.close()
        raise InvalidInputError(
            f"the certificate or its key cannot be used: {error.strerror or error}",
            hint="Both are PEM files.",
        ) from error
    sys.setswitchinterval(_SWITCH_S)
    # A line for each connection that is one too many would be work of its own.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    address = f"{'http' if tls is None else 'https'}://{shown}:{port}"
    server = _Server(settings, app.state.service.stopping, lambda: ready(address))
    try:
        asyncio.run(server.serve(sockets=[listener]))
    except SystemExit as ended:  # what it has for "the application did not start", which has been logged
        raise InternalError("the service did not start; the lines above say why") from ended
    finally:
        listener.close()
    service = app.state.service
    end_s = time.monotonic() + _LAST_CALLS_S
    while not service.is_idle and time.monotonic() < end_s:
        time.sleep(0.05)
    return bool(service.is_idle)


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=2048)
        # Connections inherit it. asyncio sets it only where a socket names its protocol, which this one does not: head
        # and body of an answer would wait for each other's acknowledgement, 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, UnicodeError) as error:
        why = error.strerror or error if isinstance(error, OSError) else error
        raise InvalidInputError(
            f"cannot listen on {host}, port {port}: {why}",
            hint="Choose another port; 0 takes any that is free.",
        ) from None
