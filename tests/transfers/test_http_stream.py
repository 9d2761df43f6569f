"""HTTP on sockets of our own, against servers that say anything at all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import (
    AuthenticationError,
    InvalidInputError,
    StorageUnavailableError,
    TextnlpFastError,
)
from textnlp_fast.objectstore.transfers import TransferSettings
from textnlp_fast.objectstore.transfers.http_stream import Answer, HttpStreams
from textnlp_fast.objectstore.transfers.progress import Meter
from textnlp_fast.objectstore.transfers.protocol import BackOffError
from textnlp_fast.objectstore.transfers.watch import StreamWatch, Watch


@contextmanager
def saying(*answers: bytes, piece: int = 1 << 20, pause_s: float = 0.0) -> Iterator[str]:
    """A server that gives these answers, one a request, `piece` bytes at a time, and then closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        listener.close()
        with connection:
            for answer in answers:
                try:
                    if not connection.recv(1 << 16):
                        return
                    for place in range(0, len(answer), piece):
                        connection.sendall(answer[place : place + piece])
                        time.sleep(pause_s)
                except OSError:
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
        thread.join(10)


def watch(**settings: float) -> StreamWatch:
    return Watch(TransferSettings(**settings), Meter(0, 0)).stream()  # type: ignore[arg-type]


def ask(url: str, streams: HttpStreams | None = None, stall_s: float = 5.0) -> tuple[Answer, bytes]:
    got = bytearray()

    def take(offset: int, data: memoryview) -> None:
        assert offset == len(got)
        got.extend(data)

    streams = streams or HttpStreams()
    try:
        answer = streams.request(
            "GET",
            f"{url}/x?secret=1",
            {},
            buffer=memoryview(bytearray(1000)),
            take=take,
            watch=watch(stall_timeout_s=stall_s),
        )
    finally:
        streams.close()
    return answer, bytes(got)


BODY = bytes(range(256)) * 20
HEAD = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5120\r\n\r\n"


@given(piece=st.integers(1, 6000))
def test_an_answer_may_come_in_any_pieces(piece: int) -> None:
    with saying(HEAD + BODY, piece=max(piece, 40)) as url:
        answer, got = ask(url)
    assert (answer.status, got) == (206, BODY)


def test_one_connection_serves_many_requests_and_is_replaced_when_it_was_closed() -> None:
    streams = HttpStreams()
    with saying(HEAD + BODY, HEAD + BODY) as url:
        for _ in range(2):
            answer = streams.request("GET", url, {}, watch=watch(), take_status=0)
            assert answer.body == BODY
        # The server has closed it by now, and listens no more.
        with pytest.raises(StorageUnavailableError):
            streams.request("GET", url, {}, watch=watch())
    streams.close()


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
            b"hiabc",
        ),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_answers_of_every_kind_are_understood(said: bytes, body: bytes) -> None:
    with saying(said) as url:
        answer, got = ask(url)
    assert (answer.body, got) == (body, b"")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 206 X\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 206 X\r\nContent-Length: 5, 6\r\n\r\nabcde",
        b"HTTP/1.1 206 X\r\nContent-Length: 99999999999\r\n\r\nabc",
        b"HTTP/1.1 206 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 X\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000,
        b"HTTP/1.1 200 X\r\n" + b"a: b\r\n" * 100_000,
        b"HTTP/1.1 200 X",
    ],
)
def test_what_is_no_answer_is_an_error_and_no_hang(said: bytes) -> None:
    with saying(said) as url, pytest.raises(TextnlpFastError) as caught:
        ask(url, stall_s=2.0)
    assert "secret" not in str(caught.value)


@given(noise=st.binary(max_size=300))
def test_noise_is_an_error_or_an_answer(noise: bytes) -> None:
    with saying(b"HTTP/1.1 20" + noise) as url:
        try:
            ask(url, stall_s=1.0)
        except TextnlpFastError:
            return


def test_a_drip_is_cut() -> None:
    with saying(HEAD + BODY, piece=1, pause_s=0.02) as url, pytest.raises(BackOffError, match="a second"):
        ask(url, stall_s=0.5)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInputError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (429, BackOffError),
        (500, BackOffError),
        (503, BackOffError),
        (301, StorageUnavailableError),
    ],
)
def test_a_status_says_what_to_do(status: int, kind: type[TextnlpFastError]) -> None:
    with pytest.raises(kind, match=str(status)) as caught:
        Answer(status, {"retry-after": "7"}, b"<Error>why</Error>").raise_for("cannot read x")
    if isinstance(caught.value, BackOffError):
        assert caught.value.retry_after_s == 7
    assert "why" in str(caught.value)


def test_a_header_cannot_smuggle_another() -> None:
    with saying(HEAD + BODY) as url, pytest.raises(InvalidInputError, match="line break"):
        HttpStreams().request("GET", url, {"X": "a\r\nHost: evil"}, watch=watch())
