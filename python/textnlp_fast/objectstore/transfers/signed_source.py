"""An object of S3 or Azure as a source: signed URLs, ranges of one ETag."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from textnlp_fast.errors import (
    InvalidInputError,
    MissingObjectError,
    StorageUnavailableError,
    TextnlpFastError,
)
from textnlp_fast.objectstore.transfers.http_stream import HttpStreams
from textnlp_fast.objectstore.transfers.protocol import SourceState, state_of
from textnlp_fast.objectstore.transfers.range_reading import read_range

if TYPE_CHECKING:
    from textnlp_fast.objectstore.transfers.protocol import Take
    from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = ["SignedSource"]

_NO_BUCKET: Final = (b"NoSuchBucket", b"ContainerNotFound")


class SignedSource:
    """What a signed URL gives. ``sign`` makes one for a method; ``quiet`` a watch for asking for size and ETag."""

    def __init__(self, url: str, sign: Callable[[str], str], quiet: Callable[[], StreamWatch]) -> None:
        self.url = url
        self._sign = sign
        self._quiet = quiet
        self._streams = HttpStreams()

    def look(self) -> SourceState:
        answer = self._streams.request("HEAD", self._sign("HEAD"), {}, watch=self._quiet())
        if answer.status == 404:
            raise self._absent()
        if answer.status != 200:
            answer.raise_for(f"cannot look at {self.url}")
        etag, length = answer.headers.get("etag"), answer.headers.get("content-length", "")
        if not etag or not length.isdigit():
            raise StorageUnavailableError(f"{self.url} tells neither its size nor its ETag")
        metadata = {
            name.removeprefix(prefix): value
            for name, value in answer.headers.items()
            for prefix in ("x-amz-meta-", "x-ms-meta-")
            if name.startswith(prefix)
        }
        return state_of(int(length), etag, metadata)

    def _absent(self) -> TextnlpFastError:
        """What is missing: the object, or all of its bucket, of which an answer to HEAD cannot tell."""
        watch, header = self._quiet(), {"Range": "bytes=0-0"}
        answer = self._streams.request("GET", self._sign("GET"), header, take_status=0, watch=watch)
        if answer.status == 404 and any(name in answer.body for name in _NO_BUCKET):
            return InvalidInputError(
                f"there is no bucket of {self.url}",
                hint="Create the bucket, or check its name, region and endpoint.",
            )
        return MissingObjectError(f"there is no {self.url}", hint="Check the name.")

    def read(
        self, state: SourceState, offset: int, length: int, buffer: memoryview, take: Take, watch: StreamWatch
    ) -> None:
        address = self._sign("GET"), dict[str, str]()
        read_range(self._streams, address, self.url, offset, length, buffer, take, watch, etag=state.identity)

    def close(self) -> None:
        self._streams.close()
