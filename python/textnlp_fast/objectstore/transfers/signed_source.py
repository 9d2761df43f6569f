"""An S3 object as a source: signed URLs, ranges of one ETag, straight from sockets into the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textnlp_fast.errors import MissingObjectError, SourceChangedError, StorageUnavailableError
from textnlp_fast.objectstore.transfers.http_stream import HttpStreams
from textnlp_fast.objectstore.transfers.protocol import DIGEST_KEY, SourceState

if TYPE_CHECKING:
    from textnlp_fast.objectstore.transfers.protocol import Take
    from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = ["SignedSource"]


class SignedSource:
    """What a signed URL gives. ``sign`` makes one for a method; ``watch`` bounds the question for size and ETag."""

    def __init__(self, url: str, sign: Callable[[str], str], quiet: Callable[[], StreamWatch]) -> None:
        self.url = url
        self._sign = sign
        self._quiet = quiet
        self._streams = HttpStreams()

    def look(self) -> SourceState:
        answer = self._streams.request("HEAD", self._sign("HEAD"), {}, watch=self._quiet())
        if answer.status == 404:
            raise MissingObjectError(
                f"there is no {self.url}", hint="Check the name, the bucket and the region."
            )
        if answer.status != 200:
            answer.raise_for(f"cannot look at {self.url}")
        etag, length = answer.headers.get("etag"), answer.headers.get("content-length", "")
        if not etag or not length.isdigit():
            raise StorageUnavailableError(f"{self.url} tells neither its size nor its ETag")
        return SourceState(int(length), etag, answer.headers.get(f"x-amz-meta-{DIGEST_KEY}"))

    def read(
        self, state: SourceState, offset: int, length: int, buffer: memoryview, take: Take, watch: StreamWatch
    ) -> None:
        headers = {
            "Range": f"bytes={offset}-{offset + length - 1}",
            "If-Match": state.identity,
            "Accept-Encoding": "identity",
        }
        got = 0

        def count(place: int, data: memoryview) -> None:
            nonlocal got
            take(place, data)
            got = place + len(data)

        answer = self._streams.request(
            "GET", self._sign("GET"), headers, buffer=buffer, take=count, watch=watch
        )
        if answer.status in {404, 412}:
            raise SourceChangedError(f"{self.url} was replaced or removed while it was read")
        if answer.status != 206:
            answer.raise_for(f"cannot read {self.url}")
        wanted = f"bytes {offset}-{offset + length - 1}/"
        if not answer.headers.get("content-range", wanted).startswith(wanted) or got != length:
            raise StorageUnavailableError(f"{self.url} sent another range than the one asked for")
        if answer.headers.get("etag", state.identity) != state.identity:
            raise SourceChangedError(f"{self.url} was replaced while it was read")

    def close(self) -> None:
        self._streams.close()
