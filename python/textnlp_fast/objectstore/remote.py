"""Objects in a bucket, or in memory, through obstore (HTTP client, signing, multipart uploads)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import obstore
from obstore import exceptions as obstore_errors
from obstore.store import MemoryStore, S3Store

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
from textnlp_fast.objectstore.endpoints import authorities
from textnlp_fast.objectstore.ranges import cut, merged
from textnlp_fast.telemetry import count

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import AzureStore, ClientConfig, RetryConfig

    _Store = S3Store | AzureStore | MemoryStore

__all__ = ["RemoteBackend", "client_options", "retry_options"]

_PART_BYTES = 8 << 20
_MULTIPART_FROM_BYTES = 16 << 20
_MOST_PARTS = 9_000  # S3 takes 10,000
_PARTS_AT_ONCE = 6
_LISTING_RETRIES = 3
_CONNECT_TIMEOUT_S = 10.0
_RETRY_TIMEOUT_S = 240.0  # a retried request keeps its signature, which S3 takes for five minutes
# A request that keeps moving may take this many times the timeout of a silent one.
_WHOLE_REQUEST_TIMEOUTS = 10
_STATUS = re.compile(r"status code: (\d{3})")  # obstore has no class for these, only a sentence
_DISBELIEVED = re.compile(r"InvalidCertificate\(\s*(\w+)")  # in the debug dump alone
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_DELETE_REFUSED = re.compile(r"\(code: (AccessDenied|401|403)\)")  # objects are deleted by a batch of one
_AZURE_LOGIN = "Log in with `az login`, or check the account's key and the roles on the container."
_REFUSED = (obstore_errors.PermissionDeniedError, obstore_errors.UnauthenticatedError)
_IMPOSSIBLE = (obstore_errors.InvalidPathError, obstore_errors.NotSupportedError, NotImplementedError)


def client_options(timeout_s: float, *, plain_http: bool) -> ClientConfig:
    """How obstore's HTTP client waits; it speaks TLS alone unless ``plain_http``."""
    if not plain_http:
        authorities()  # obstore says nothing of a file that is not there
    return {
        "connect_timeout": timedelta(seconds=min(timeout_s, _CONNECT_TIMEOUT_S)),
        "read_timeout": timedelta(seconds=timeout_s),
        "timeout": timedelta(seconds=timeout_s * _WHOLE_REQUEST_TIMEOUTS),
        "allow_http": plain_http,
        "user_agent": "textnlp-fast",
    }


def retry_options(timeout_s: float, retries: int) -> RetryConfig:
    """How often obstore sends a request again, and for how long; with 0 ``retries`` it is sent once."""
    return {
        "max_retries": retries,
        "retry_timeout": timedelta(seconds=min(timeout_s * (retries + 1), _RETRY_TIMEOUT_S)),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
    }


class RemoteBackend:
    """Objects behind obstore.

    ``patient`` retries by itself and is used for whatever may be sent twice. ``once`` is the same place
    without retries, for conditional writes: a put that is silently sent again after a lost answer reports a
    conflict with itself.
    """

    def __init__(self, url: str, *, patient: _Store, once: _Store) -> None:
        self.url = url
        self._patient = patient
        self._once = once
        self._bare_etags = False  # which spelling of If-Match this server was seen to understand

    def get(self, key: str, limit_bytes: int | None) -> tuple[bytes, Version]:
        with self._errors("read", key):
            answer = obstore.get(self._patient, key)
            size = answer.meta["size"]
            if limit_bytes is not None and size > limit_bytes:
                raise CorruptDataError(
                    f"{key!r} in {self.url} has {size} bytes; at most {limit_bytes} were expected"
                )
            version = Version(answer.meta["e_tag"] or "", answer.meta["version"])
            content = bytes(answer.bytes())
        if len(content) != size:
            raise StorageUnavailableError(f"{key!r} in {self.url}: got {len(content)} of {size} bytes")
        return content, version

    def get_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[memoryview]:
        # Merged here and not by obstore, which panics where a merged range passes the end of the object.
        groups = merged(starts, lengths)
        firsts = [first for first, _ in groups]
        try:
            with self._errors("read", key):
                parts = obstore.get_ranges(
                    self._patient, key, starts=firsts, lengths=[size for _, size in groups], coalesce=0
                )
        except StorageUnavailableError:
            # A range that starts behind the end is refused like any bad request: only the size tells it
            # apart.
            size = self.head(key).size
            if firsts[-1] < size:
                raise
            error = CorruptDataError(
                f"{key!r} in {self.url} ends early: bytes from {firsts[-1]} wanted, it has {size}"
            )
            error.position = size
            raise error from None
        return cut(groups, [memoryview(part) for part in parts], starts, lengths)

    def head(self, key: str) -> ObjectMeta:
        with self._errors("look at", key):
            return _meta(obstore.head(self._patient, key))

    def put(self, key: str, data: memoryview) -> None:
        size_bytes = len(data)
        # In memory a copy: the store would keep the caller's buffer, and change with it.
        body = bytes(data) if isinstance(self._patient, MemoryStore) else data
        with self._errors("write", key):
            obstore.put(
                self._patient,
                key,
                body,
                mode="overwrite",
                use_multipart=size_bytes >= _MULTIPART_FROM_BYTES,
                chunk_size=max(_PART_BYTES, -(-size_bytes // _MOST_PARTS)),
                max_concurrency=_PARTS_AT_ONCE,
            )

    def put_if_absent(self, key: str, data: bytes) -> Version:
        with self._errors("create", key):
            answer = obstore.put(self._once, key, data, mode="create", use_multipart=False)
        return Version(answer["e_tag"] or "", answer["version"])

    def put_if_version(self, key: str, data: bytes, expected: Version) -> Version:
        if not expected.etag:
            raise InvalidInputError(f"{self.url} gives its objects no ETag, which compare-and-swap needs")
        bare = self._bare_etags
        try:
            return self._put_if_match(key, data, expected, bare=bare)
        except PreconditionFailedError:
            if not isinstance(self._once, S3Store) or not self._is_at(key, expected):
                raise
        # Nobody else has written and yet the condition "does not hold": Ceph's gateway compares the header with the
        # bare ETag, quotes and all. What was refused was not done, so asking in the other spelling is no second write.
        version = self._put_if_match(key, data, expected, bare=not bare)
        self._bare_etags = not bare
        return version

    def _put_if_match(self, key: str, data: bytes, expected: Version, *, bare: bool) -> Version:
        mode: UpdateVersion = {"e_tag": expected.etag.strip('"') if bare else expected.etag}
        if expected.version is not None:  # obstore refuses an explicit None
            mode["version"] = expected.version
        with self._errors("update", key):
            try:
                answer = obstore.put(self._once, key, data, mode=mode, use_multipart=False)
            except FileNotFoundError:
                raise PreconditionFailedError(key) from None
        return Version(answer["e_tag"] or "", answer["version"])

    def _is_at(self, key: str, expected: Version) -> bool:
        try:
            return self.head(key).etag == expected.etag
        except MissingObjectError:
            return False

    def list(self, prefix: str) -> Iterator[ObjectMeta]:
        # obstore sends a listing again when it is refused, not when its answer breaks off: go on after the
        # last key.
        last: str | None = None
        failures = 0
        while True:
            try:
                with self._errors("list", prefix):
                    pages = iter(obstore.list(self._patient, prefix or None, offset=last, chunk_size=1000))
                while True:
                    with self._errors("list", prefix):
                        page = next(pages, None)
                    if page is None:
                        return
                    failures = 0
                    for entry in page:
                        last = entry["path"]
                        yield _meta(entry)
            except StorageUnavailableError:
                failures += 1
                if failures > _LISTING_RETRIES:
                    raise
                count(retries=1)

    def delete(self, key: str) -> None:
        with self._errors("delete", key):
            try:
                obstore.delete(self._patient, key)
            except FileNotFoundError:
                return

    def signed_url(self, method: Literal["GET", "HEAD", "PUT"], key: str, *, lifetime_s: float) -> str | None:
        """A URL that lets whoever holds it do so for a while; ``None`` where there is no such thing."""
        if isinstance(self._patient, MemoryStore):
            return None
        with self._errors("sign a URL of", key):
            return obstore.sign(self._patient, method, key, timedelta(seconds=lifetime_s))

    @contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        """Turn what obstore says into what the caller can do."""
        try:
            yield
        except (obstore_errors.AlreadyExistsError, obstore_errors.PreconditionError):
            raise PreconditionFailedError(key) from None
        except (obstore_errors.BaseError, OSError, NotImplementedError) as error:
            raise _what_to_do(error, f"cannot {verb} {key!r} in {self.url}", self.url, key) from error


def _what_to_do(error: Exception, doing: str, url: str, key: str) -> TextnlpFastError:
    text = str(error)
    status = _STATUS.search(text)
    code = int(status[1]) if status else None
    if any(name in text for name in _NO_BUCKET):
        return InvalidInputError(
            f"{doing}: there is no such bucket",
            hint="Create the bucket, or check its name, region and endpoint.",
        )
    if isinstance(error, FileNotFoundError):
        return MissingObjectError(f"{url} has no object {key!r}")
    doing = f"{doing}: {_first_line(text)}"
    if disbelieved := _DISBELIEVED.search(text):
        return UntrustedServerError(f"{doing} ({disbelieved[1]})")
    if isinstance(error, _REFUSED) or code in {401, 403} or _DELETE_REFUSED.search(text):
        return AuthenticationError(doing, hint=_AZURE_LOGIN if url.startswith("az:") else None)
    if code in {301, 307} or "AuthorizationHeaderMalformed" in text:
        return InvalidInputError(
            doing, hint="The bucket is in another region: give it as region= or in AWS_REGION."
        )
    if isinstance(error, _IMPOSSIBLE):
        return InvalidInputError(doing)
    return StorageUnavailableError(doing)


def _meta(entry: Any) -> ObjectMeta:
    etag = entry["e_tag"] or ""
    if re.fullmatch(r"0x[0-9A-Fa-f]+", etag):
        etag = f'"{etag}"'  # Azure's listings leave out the quotes that its other answers have
    return ObjectMeta(entry["path"], entry["size"], etag)


def _first_line(text: str) -> str:
    """The sentence of an obstore error, without its debug dump."""
    return re.sub(r"\s+", " ", text.split("\n\nDebug source", 1)[0]).strip()[:500]
