"""The small HTTP client: deadlines and bounds hold, whatever the other side does."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fakes.loopback_http import Asked, Said, loopback
from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError
from textnlp_fast.gpu.health.http import checked_url, request


@contextmanager
def raw_server(answer: bytes, *, hold_s: float = 0.0) -> Iterator[str]:
    """Answers every connection with these bytes and hangs up, or holds the line."""
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                stop.wait(hold_s)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        stop.set()
        server.close()


async def test_a_request_and_its_answer() -> None:
    def answer(asked: Asked) -> Said:
        return Said(201, asked.body[::-1], {"X-Path": asked.path, "X-Mine": asked.headers["x-mine"]})

    with loopback(answer) as server:
        got = await request("POST", f"{server.url}/a?b=c", headers={"X-Mine": "1"}, body=b"abc")
    assert (got.status, got.body, got.headers["x-path"], got.headers["x-mine"]) == (
        201,
        b"cba",
        "/a?b=c",
        "1",
    )


async def test_bodies_in_chunks_and_until_the_end() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with raw_server(head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n") as url:
        assert (await request("GET", url)).body == b"abcde"
    with raw_server(b"HTTP/1.0 200 OK\r\n\r\nuntil the end") as url:
        assert (await request("GET", url)).body == b"until the end"
    with raw_server(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n") as url:
        assert (await request("GET", url)).status == 204


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 70000,
    ],
)
async def test_hostile_answers_are_one_error(answer: bytes) -> None:
    with raw_server(answer) as url, pytest.raises(ProviderUnavailableError):
        await request("GET", url, limit_bytes=65536)


async def test_a_server_that_holds_the_line_is_given_up() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"
    with raw_server(answer, hold_s=30) as url, pytest.raises(ProviderUnavailableError, match="within"):
        await request("GET", url, timeout_s=0.2)


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ProviderUnavailableError, match="127"):
        await request("GET", f"http://127.0.0.1:{port}")


async def test_headers_cannot_be_smuggled() -> None:
    with loopback(lambda _: Said()) as server, pytest.raises(ProviderUnavailableError, match="control"):
        await request("GET", server.url, headers={"X": "a\r\nHost: other"})


@pytest.mark.parametrize(
    "url", ["", "ftp://a", "http://", "http://a:99999", "http://a/\r\nb", "nothing", "http://u:p@a/"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidInputError):
        checked_url(url)


async def test_a_redirect_is_not_followed() -> None:
    with loopback(lambda _: Said(302, b"", {"Location": "http://127.0.0.1:1/"})) as server:
        assert (await request("GET", server.url)).status == 302


def test_an_answer_that_is_no_json() -> None:
    async def ask() -> None:
        with loopback(lambda _: Said(200, b"<html>")) as server:
            (await request("GET", server.url)).json()

    with pytest.raises(ProviderUnavailableError, match="JSON"):
        asyncio.run(ask())
