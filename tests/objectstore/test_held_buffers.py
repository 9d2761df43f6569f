"""Who holds a caller's buffer when a write of it is over: the caller wants to fill it again, and to let it grow."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from textnlp_fast.errors import StorageUnavailableError
from textnlp_fast.objectstore import open_store


@pytest.mark.parametrize("kind", ["status", "status_after", "lose_answer", "lose_request"])
def test_an_upload_that_was_repeated_lets_go(gcs_fake: Any, gcs_bucket: str, kind: Any) -> None:
    """Google's client keeps the errors that it caught, and they the frames below them, in cycles."""
    from fakes.gcs import GcsFault  # noqa: PLC0415  needs Google's client

    store = open_store(f"gs://{gcs_bucket}")
    buffer = bytearray(b"0123456789")
    gc.collect()
    gc.disable()
    try:
        fault = gcs_fake.inject(GcsFault(kind, method="POST", path="/upload/"))
        with memoryview(buffer)[2:5] as piece:
            store.put_object("a", piece)
        buffer.extend(b"grows only if nobody holds it")
    finally:
        gc.enable()
    assert fault.hits == 1
    assert store.get("a") == b"234"


@contextmanager
def hasty_server(answer: bytes) -> Iterator[str]:
    """Answers when it has seen the beginning of a request, and leaves the rest of it in the socket."""
    ended = threading.Event()
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                connection, _ = server.accept()
                connections.append(connection)
                if ended.is_set():
                    return
                connection.recv(1 << 10)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            socket.create_connection(server.getsockname()).close()
            thread.join()
            for connection in connections:
                connection.close()


@pytest.mark.usefixtures("aws_environment")
def test_an_early_answer_is_an_answer() -> None:
    """S3 that is busy says so before it has read the body; the connection goes on sending from the buffer."""
    buffer = bytearray(15 << 20)
    with hasty_server(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n") as url:
        store = open_store("s3://bucket", endpoint_url=url, retries=1)
        with pytest.raises(StorageUnavailableError, match="503"):
            store.put_object("a", buffer)
        buffer[:] = bytes(len(buffer))  # it may change
    with hasty_server(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n') as url:
        open_store("s3://bucket", endpoint_url=url, retries=1).put_object("a", buffer)
