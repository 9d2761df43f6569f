"""Objects in a bucket of Google Cloud Storage, through Google's own client.

An object's generation is its version: ``ifGenerationMatch`` makes a write conditional, 0 means that there is none.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from textnlp_fast.errors import (
    AuthenticationError,
    CorruptDataError,
    InvalidInputError,
    MissingObjectError,
    StorageUnavailableError,
    TextnlpFastError,
    UntrustedServerError,
)
from textnlp_fast.objectstore.backend import ObjectMeta, PreconditionFailedError, Version
from textnlp_fast.objectstore.endpoints import DISBELIEVED
from textnlp_fast.objectstore.google_client import GoogleClient, first_line, google_client
from textnlp_fast.objectstore.keys import check_prefix
from textnlp_fast.objectstore.ranges import cut, merged

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from textnlp_fast.objectstore.store import OpenArguments

__all__ = ["open_gcs"]

_BUCKET = re.compile(r"(?!goog)[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", re.ASCII)
_RANGES_AT_ONCE = 8
_CHUNK_BYTES = 16 << 20  # of a resumable upload; a multiple of 256 KiB
_LISTING_RETRIES = 3


def open_gcs(bucket: str, prefix: str, opening: OpenArguments) -> GoogleBackend:
    """A bucket, or a folder of one. Nothing is sent yet."""
    if not _BUCKET.fullmatch(bucket):
        raise InvalidInputError(f"{bucket!r} is no bucket name: 3 to 222 of a-z, 0-9, '.', '_' and '-'")
    encryption = opening.encryption
    if encryption is not None and encryption.bucket_key:
        raise InvalidInputError("bucket_key is an option of S3; Google Cloud Storage has none")
    prefix = check_prefix(prefix)
    google = google_client(opening)
    return GoogleBackend(google, bucket, prefix, kms_key=encryption.kms_key if encryption else None)


class GoogleBackend:
    """Objects behind google-cloud-storage."""

    def __init__(self, google: GoogleClient, bucket: str, prefix: str, *, kms_key: str | None) -> None:
        self.url = f"gs://{bucket}/{prefix}" if prefix else f"gs://{bucket}"
        self._google = google
        self._bucket = google.client.bucket(bucket)
        self._prefix = f"{prefix}/" if prefix else ""
        self._kms_key = kms_key
        self._pool = ThreadPoolExecutor(_RANGES_AT_ONCE, thread_name_prefix="gcs-range")

    # --- reading --------------------------------------------------------------------------------------------

    def get(self, key: str, limit_bytes: int | None) -> tuple[bytes, Version]:
        blob = self._blob(key)
        body = _Body(limit_bytes)
        try:
            with self._errors("read", key):
                blob.download_to_file(body, retry=self._google.retry(), timeout=self._google.timeout_s)
        except _TooLargeError:
            size = self.head(key).size
            raise CorruptDataError(
                f"{key!r} in {self.url} has {size} bytes; at most {limit_bytes} were expected"
            ) from None
        return body.getvalue(), Version(str(blob.generation))

    def get_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[memoryview]:
        groups = merged(starts, lengths)
        if len(groups) == 1:
            parts = [self._range(key, *groups[0])]
        else:
            parts = list(self._pool.map(lambda group: self._range(key, *group), groups))
        return cut(groups, parts, starts, lengths)

    def _range(self, key: str, start: int, length: int) -> memoryview:
        body = _Body(None)
        with self._errors("read", key):
            try:
                self._blob(key).download_to_file(
                    body,
                    start=start,
                    end=start + length - 1,
                    checksum=None,  # of the whole object only
                    retry=self._google.retry(),
                    timeout=self._google.timeout_s,
                )
            except self._google.modules.api.RequestRangeNotSatisfiable:
                return memoryview(b"")  # it ends before
        return body.getbuffer()

    def head(self, key: str) -> ObjectMeta:
        blob = self._blob(key)
        with self._errors("look at", key):
            blob.reload(projection="noAcl", retry=self._google.retry(), timeout=self._google.timeout_s)
        return ObjectMeta(key, blob.size, str(blob.generation))

    def list(self, prefix: str) -> Iterator[ObjectMeta]:
        folder = f"{self._prefix}{prefix}/" if prefix else self._prefix
        last: str | None = None
        failures = 0
        while True:
            try:
                for blob in self._pages(folder, last, prefix):
                    failures = 0
                    if blob.name != last:  # the offset is the first that may come
                        last = blob.name
                        yield ObjectMeta(blob.name[len(self._prefix) :], blob.size, str(blob.generation))
                return
            except StorageUnavailableError:
                failures += 1
                if failures > _LISTING_RETRIES:
                    raise

    def _pages(self, folder: str, offset: str | None, prefix: str) -> Iterator[Any]:
        with self._errors("list", prefix):
            blobs = iter(
                self._google.client.list_blobs(
                    self._bucket,
                    prefix=folder or None,
                    start_offset=offset,
                    fields="items(name,size,generation),nextPageToken",
                    page_size=1000,
                    retry=self._google.retry(),
                    timeout=self._google.timeout_s,
                )
            )
        while True:
            with self._errors("list", prefix):
                blob = next(blobs, None)
            if blob is None:
                return
            yield blob

    # --- writing --------------------------------------------------------------------------------------------

    def put(self, key: str, data: memoryview) -> None:
        with self._errors("write", key):
            self._upload(key, data, self._google.retry())

    def put_if_absent(self, key: str, data: bytes) -> Version:
        with self._errors("create", key):
            return self._upload(key, data, None, if_generation_match=0)

    def put_if_version(self, key: str, data: bytes, expected: Version) -> Version:
        with self._errors("update", key):
            return self._upload(key, data, None, if_generation_match=int(expected.etag))

    def _upload(self, key: str, data: Buffer, retry: Any, **condition: int) -> Version:
        blob = self._blob(key, chunk_bytes=_CHUNK_BYTES)
        with memoryview(data) as view:  # errors that Google's client has caught keep it alive
            blob.upload_from_file(
                _Reader(view),
                size=len(view),
                content_type="application/octet-stream",
                retry=retry,
                timeout=self._google.timeout_s,
                **condition,
            )
        return Version(str(blob.generation))

    def delete(self, key: str) -> None:
        with self._errors("delete", key):
            try:
                self._blob(key).delete(retry=self._google.retry(), timeout=self._google.timeout_s)
            except self._google.modules.api.NotFound as error:
                if _no_bucket(error):
                    raise

    def _blob(self, key: str, *, chunk_bytes: int | None = None) -> Any:
        return self._bucket.blob(self._prefix + key, chunk_size=chunk_bytes, kms_key_name=self._kms_key)

    @contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        """Turn what Google's client says into what the caller can do."""
        modules = self._google.modules
        try:
            yield
        except (modules.api.PreconditionFailed, modules.api.Conflict):
            raise PreconditionFailedError(key) from None
        except modules.errors as error:
            raise self._what_to_do(error, f"cannot {verb} {key!r} in {self.url}", key) from error

    def _what_to_do(self, error: Any, doing: str, key: str) -> TextnlpFastError:
        modules = self._google.modules
        doing_why = f"{doing}: {first_line(str(error))}"
        if isinstance(error, modules.api.RetryError) and error.cause is not None:
            return self._what_to_do(error.cause, doing, key)
        if _no_bucket(error):
            return InvalidInputError(
                f"{doing}: there is no such bucket", hint="Create the bucket, or check its name and project."
            )
        if isinstance(error, modules.api.NotFound):
            return MissingObjectError(f"{self.url} has no object {key!r}")
        if isinstance(error, modules.storage.DataCorruption):
            return CorruptDataError(doing_why)
        if DISBELIEVED in str(error):
            return UntrustedServerError(doing_why)
        if isinstance(error, modules.auth_errors.TransportError) or self._google.is_transient(error):
            return StorageUnavailableError(doing_why)
        refused = (modules.api.Unauthorized, modules.api.Forbidden, modules.auth_errors.GoogleAuthError)
        if isinstance(error, refused):
            return AuthenticationError(
                doing_why,
                hint="Log in with `gcloud auth application-default login`, or check the service account's roles.",
            )
        if isinstance(error, modules.api.BadRequest):
            return InvalidInputError(doing_why)
        return StorageUnavailableError(doing_why)


class _TooLargeError(Exception):
    """More came than the caller wants to hold."""


class _Body(io.BytesIO):
    """Takes what is read, at most ``limit_bytes`` of it."""

    def __init__(self, limit_bytes: int | None) -> None:
        super().__init__()
        self._limit_bytes = limit_bytes

    def write(self, data: Buffer) -> int:
        if self._limit_bytes is not None and self.tell() + memoryview(data).nbytes > self._limit_bytes:
            raise _TooLargeError
        return super().write(data)


class _Reader(io.RawIOBase):
    """Reads from the caller's memory without a copy of all of it."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._view)}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._view) if size is None or size < 0 else min(len(self._view), self._at + size)
        piece = bytes(self._view[self._at : end])
        self._at = max(self._at, end)
        return piece


def _no_bucket(error: Any) -> bool:
    return getattr(error, "code", None) == 404 and "bucket does not exist" in str(error)
