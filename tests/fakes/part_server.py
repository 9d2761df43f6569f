"""The few requests of S3 that moving files takes, as fast as Python's sockets are: for measuring clients, not servers.

It keeps the parts of uploads as files, or only their checks and sizes, and answers ranges of a file by ``sendfile``. A
part whose CRC-32 is not what the request says is refused, as S3 would. It checks no signatures. Run as a program it
prints its port and serves until its standard input ends:

    python part_server.py FOLDER [discard]
"""

from __future__ import annotations

import base64
import os
import re
import socket
import sys
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_BUFFER_BYTES = 1 << 20


class PartServer:
    """``folder`` holds ``bucket/key`` files to read; uploads come to lie there as ``bucket/key`` and a folder of parts.

    ``discard`` keeps no bytes of uploads: ``received`` has the size and CRC-32 of each part then.
    """

    def __init__(self, folder: Path, *, discard: bool = False) -> None:
        self.folder = folder
        self.discard = discard
        self.received: dict[str, dict[int, tuple[int, int]]] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.made: dict[str, int] = {}
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._socket.close()

    def parts(self, upload_id: str) -> Path:
        return self.folder / ".parts" / upload_id

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_Connection(self, connection).serve, daemon=True).start()


class _Connection:
    def __init__(self, server: PartServer, connection: socket.socket) -> None:
        self._server = server
        self._connection = connection
        self._rest = b""
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def serve(self) -> None:
        try:
            while self._one():
                pass
        except (ConnectionError, ValueError):
            pass
        finally:
            self._connection.close()

    def _one(self) -> bool:
        while b"\r\n\r\n" not in self._rest:
            more = self._connection.recv(1 << 16)
            if not more:
                return False
            self._rest += more
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)
        }
        if headers.get("expect", "").lower() == "100-continue":
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self._answer_to(method, unquote(parts.path).lstrip("/"), query, headers)
        return headers.get("connection", "").lower() != "close"

    def _answer_to(self, method: str, key: str, query: dict[str, str], headers: dict[str, str]) -> None:
        server = self._server
        if method == "PUT":
            self._take(key, query, headers)
            return
        body = b"".join(bytes(piece) for piece in self._pieces(headers))
        if method in {"GET", "HEAD"} and "uploadId" not in query:
            self._send_object(method, key, headers)
        elif method == "POST" and "uploads" in query:
            upload = uuid.uuid4().hex
            server.received[upload] = {}
            server.metadata[key] = {n: v for n, v in headers.items() if n.startswith("x-amz-meta-")}
            if not server.discard:
                server.parts(upload).mkdir(parents=True)
            self._xml(
                f"<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>{key}</Key>"
                f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>",
                # As S3 confirms that it will check and keep them.
                headers=[(n, v) for n, v in headers.items() if n == "x-amz-checksum-algorithm"],
            )
        elif method == "GET":
            rows = server.received.get(query["uploadId"])
            if rows is None:
                self._xml("<Error><Code>NoSuchUpload</Code></Error>", status="404 Not Found")
                return
            self._xml(
                "<ListPartsResult>"
                + "".join(
                    f'<Part><PartNumber>{number}</PartNumber><ETag>"{crc:08x}"</ETag><Size>{size}</Size>'
                    f"<ChecksumCRC32>{_text(crc)}</ChecksumCRC32></Part>"
                    for number, (size, crc) in sorted(rows.items())
                )
                + "<IsTruncated>false</IsTruncated></ListPartsResult>"
            )
        elif method == "POST":
            numbers = [int(number) for number in re.findall(rb"<PartNumber>(\d+)<", body)]
            received = server.received.pop(query["uploadId"])
            server.made[key] = sum(received[number][0] for number in numbers)
            self._xml(
                f'<CompleteMultipartUploadResult><Key>{key}</Key><ETag>"{query["uploadId"]}"</ETag>'
                "</CompleteMultipartUploadResult>"
            )
        else:
            server.received.pop(query.get("uploadId", ""), None)
            self._head("204 No Content", [])

    def _take(self, key: str, query: dict[str, str], headers: dict[str, str]) -> None:
        """A part, or an object in one piece."""
        server, size, crc = self._server, 0, 0
        checked = headers.get("x-amz-checksum-crc32")
        upload, number = query.get("uploadId"), int(query.get("partNumber", "1"))
        file = None
        if not server.discard:
            place = server.parts(upload) / f"{number:05d}" if upload else server.parts("whole") / key
            place.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for piece in self._pieces(headers):
            size += len(piece)
            if checked is not None:
                crc = zlib.crc32(piece, crc)
            if file is not None:
                os.write(file, piece)
        if file is not None:
            os.close(file)
        if checked is not None and checked != _text(crc):
            self._xml("<Error><Code>BadDigest</Code></Error>", status="400 Bad Request")
            return
        if upload:
            server.received[upload][number] = (size, crc)
        else:
            server.made[key] = size
            server.metadata[key] = {n: v for n, v in headers.items() if n.startswith("x-amz-meta-")}
        self._head("200 OK", [("ETag", f'"{crc:08x}"'), ("Content-Length", "0")])

    def _pieces(self, headers: dict[str, str]) -> Iterator[memoryview]:
        """The request's body; ``aws-chunked`` is taken apart."""
        if "aws-chunked" in headers.get("content-encoding", "") or "transfer-encoding" in headers:
            yield from self._chunks(http="transfer-encoding" in headers)
            return
        left = int(headers.get("content-length", "0"))
        while left:
            piece = self._some(left)
            left -= len(piece)
            yield piece

    def _chunks(self, *, http: bool) -> Iterator[memoryview]:
        if http:
            raise ValueError("chunked requests are not taken")
        while True:
            size = int(self._line().split(b";")[0], 16)
            left = size
            while left:
                piece = self._some(left)
                left -= len(piece)
                yield piece
            if size == 0:
                while self._line():
                    pass  # checksums that trail
                return
            self._line()

    def _line(self) -> bytes:
        while b"\r\n" not in self._rest:
            more = self._connection.recv(1 << 16)
            if not more:
                raise ConnectionError
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def _some(self, most: int) -> memoryview:
        if self._rest:
            piece = self._rest[:most]
            self._rest = self._rest[most:]
            return memoryview(piece)
        count = self._connection.recv_into(self._buffer[:most])
        if not count:
            raise ConnectionError
        return self._buffer[:count]

    def _send_object(self, method: str, key: str, headers: dict[str, str]) -> None:
        path = self._server.folder / key
        if key in self._server.made:
            extra = list(self._server.metadata.get(key, {}).items())
            self._head(
                "200 OK", [("ETag", '"made"'), ("Content-Length", str(self._server.made[key])), *extra]
            )
            return
        if not path.is_file():
            self._head("404 Not Found", [("Content-Length", "0")])
            return
        size = path.stat().st_size
        first, last, status = 0, size - 1, "200 OK"
        shown = [("ETag", f'"{path.stat().st_mtime_ns:x}"'), ("Accept-Ranges", "bytes")]
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            first, last = int(found[1]), min(size - 1, int(found[2] or size - 1))
            status = "206 Partial Content"
            shown.append(("Content-Range", f"bytes {first}-{last}/{size}"))
        self._head(status, [*shown, ("Content-Length", str(last - first + 1))])
        if method == "HEAD":
            return
        with path.open("rb") as file:
            while first <= last:
                first += os.sendfile(self._connection.fileno(), file.fileno(), first, last - first + 1)

    def _xml(self, body: str, status: str = "200 OK", headers: Iterable[tuple[str, str]] = ()) -> None:
        data = body.encode()
        self._head(
            status, [("Content-Type", "application/xml"), ("Content-Length", str(len(data))), *headers]
        )
        self._connection.sendall(data)

    def _head(self, status: str, headers: list[tuple[str, str]]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self._connection.sendall(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1"))


def _text(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


if __name__ == "__main__":
    running = PartServer(Path(sys.argv[1]), discard="discard" in sys.argv[2:])
    sys.stdout.write(f"{running.port}\n")
    sys.stdout.flush()
    sys.stdin.read()
