"""One range of one state of an object, by HTTP, straight into the caller's hands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from textnlp_fast.errors import SourceChangedError, StorageUnavailableError

if TYPE_CHECKING:
    from textnlp_fast.objectstore.transfers.http_stream import HttpStreams
    from textnlp_fast.objectstore.transfers.protocol import Take
    from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = ["read_range"]


def read_range(
    streams: HttpStreams,
    address: tuple[str, Mapping[str, str]],
    shown: str,
    offset: int,
    length: int,
    buffer: memoryview,
    take: Take,
    watch: StreamWatch,
    *,
    etag: str | None = None,
) -> None:
    """Reads ``length`` bytes from ``offset`` at an address, a URL and its headers; ``shown`` is its name in messages.

    With an ``etag`` of that state only. ``SourceChangedError`` if there is another or none,
    ``StorageUnavailableError`` if anything but that range came.
    """
    url, more = address
    headers = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity", **more}
    if etag is not None:
        headers["If-Match"] = etag
    got = 0

    def count(place: int, data: memoryview) -> None:
        nonlocal got
        if place + len(data) > length:
            raise StorageUnavailableError(f"{shown} sent more than the range asked for")
        take(place, data)
        got = place + len(data)

    answer = streams.request("GET", url, headers, buffer=buffer, take=count, watch=watch)
    if answer.status in {404, 412}:
        raise SourceChangedError(f"{shown} was replaced or removed while it was read")
    if answer.status != 206:
        answer.raise_for(f"cannot read {shown}")
    wanted = f"bytes {offset}-{offset + length - 1}/"
    if not answer.headers.get("content-range", wanted).startswith(wanted) or got != length:
        raise StorageUnavailableError(f"{shown} sent another range than the one asked for")
    if etag is not None and answer.headers.get("etag", etag) != etag:
        raise SourceChangedError(f"{shown} was replaced while it was read")
