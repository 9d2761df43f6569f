"""The one object store class: the same contract over a bucket, a folder or memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textnlp_fast.errors import CorruptDataError, InvalidInputError, MissingObjectError
from textnlp_fast.objectstore import conditional
from textnlp_fast.objectstore.backend import Backend, ObjectMeta, Signing, Staging, Version
from textnlp_fast.objectstore.encryption import ServerSideEncryption
from textnlp_fast.objectstore.guarding import GuardedBackend
from textnlp_fast.objectstore.keys import check_key, check_prefix
from textnlp_fast.telemetry import count

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["ObjectStore", "OpenArguments"]


@dataclass(frozen=True, slots=True)
class OpenArguments:
    """What :func:`textnlp_fast.objectstore.open_store` was told beside the URL."""

    region: str | None = None
    endpoint_url: str | None = None
    allow_http: bool = False
    encryption: ServerSideEncryption | None = None
    timeout_s: float = 60.0
    retries: int = 5


class ObjectStore:
    """Objects by key, synchronous and thread-safe. Get one from :func:`textnlp_fast.objectstore.open_store`.

    Every call is bounded in time and in retries and raises ``StorageUnavailableError`` after the last of
    them, ``AuthenticationError`` when the store refuses the credentials, ``OutOfSpaceError`` when a disk is
    full and ``InvalidInputError`` for a key that is no safe relative path. Objects are always whole: a write
    that fails or is killed leaves what was there before.
    """

    def __init__(
        self,
        backend: Backend,
        backoff: conditional.Backoff,
        *,
        opening: OpenArguments | None = None,
        check: Callable[[str], str] = check_key,
    ) -> None:
        self._check_key = check
        self._backend = backend
        self._backoff = backoff
        self.opening = opening or OpenArguments()
        """How it was opened: for clients of the provider's own that go to the same place."""

    def with_keys(self, check: Callable[[str], str]) -> ObjectStore:
        """The same place, with another opinion on which keys are allowed: for objects that others named."""
        return ObjectStore(self._backend, self._backoff, opening=self.opening, check=check)

    def guarded(self, check: Callable[[], None]) -> ObjectStore:
        """The same place, with ``check`` called before every write: what it raises stops that write."""
        return self.over(lambda backend: GuardedBackend(backend, check))

    def over(self, wrap: Callable[[Backend], Backend]) -> ObjectStore:
        """The same place, reached through another backend that ``wrap`` makes of this one."""
        return ObjectStore(wrap(self._backend), self._backoff, opening=self.opening, check=self._check_key)

    def at_origin(self) -> ObjectStore:
        """The same place without anything nearer in between: for whoever checks what is really there."""
        backend = self._backend
        while (origin := getattr(backend, "origin", None)) is not None:
            backend = origin
        return self if backend is self._backend else self.over(lambda _: backend)

    @property
    def url(self) -> str:
        """Where the objects are, without credentials."""
        return self._backend.url

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    # --- reading --------------------------------------------------------------------------------------------

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """The whole object.

        ``MissingObjectError`` if absent; ``CorruptDataError`` if larger than ``limit_bytes``.
        """
        return self.get_versioned(key, limit_bytes=limit_bytes)[0]

    def get_versioned(self, key: str, *, limit_bytes: int | None = None) -> tuple[bytes, Version]:
        """The whole object and its version, for a later :meth:`compare_and_swap`. Errors as :meth:`get`."""
        content, version = self._backend.get(self._check_key(key), limit_bytes)
        count(bytes_read=len(content))
        return content, version

    def get_range(self, key: str, start: int, length: int) -> memoryview:
        """Exactly ``length`` bytes from byte ``start``; ``CorruptDataError`` if the object ends before."""
        return self.get_ranges(key, [start], [length])[0]

    def get_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[memoryview]:
        """Several ranges of one object, near ones in one request; each exactly as long as asked for.

        The views may share memory: a view kept alive keeps the bytes that were read with it.
        """
        self._check_key(key)
        if len(starts) != len(lengths):
            raise InvalidInputError(f"{len(starts)} starts and {len(lengths)} lengths of ranges")
        if any(start < 0 for start in starts) or any(length < 0 for length in lengths):
            raise InvalidInputError("a byte range starts at 0 or later and has no negative length")
        wanted = [index for index, length in enumerate(lengths) if length]
        ranges = [memoryview(b"")] * len(lengths)
        if not wanted:
            return ranges
        parts = self._backend.get_ranges(key, [starts[i] for i in wanted], [lengths[i] for i in wanted])
        for index, part in zip(wanted, parts, strict=True):
            if len(part) != lengths[index]:
                error = CorruptDataError(
                    f"{key!r} in {self.url} ends early: {lengths[index]} bytes at {starts[index]} wanted, "
                    f"got {len(part)}"
                )
                error.position = starts[index] + len(part)
                raise error
            ranges[index] = part
        count(bytes_read=sum(map(len, parts)))
        return ranges

    def head(self, key: str) -> ObjectMeta:
        """Size in bytes and etag, without the content. ``MissingObjectError`` if absent."""
        return self._backend.head(self._check_key(key))

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        try:
            self.head(key)
        except MissingObjectError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[ObjectMeta]:
        """Objects below the folder ``prefix`` ("a/b" covers "a/b/x", not "a/bc"), ordered by key."""
        return self._backend.list(check_prefix(prefix))

    def signed_url(
        self, method: Literal["GET", "HEAD", "PUT"], key: str, *, lifetime_s: float = 3600.0
    ) -> str | None:
        """A URL that lets whoever holds it do so for a while; ``None`` where there is no such thing."""
        self._check_key(key)
        return (
            self._backend.signed_url(method, key, lifetime_s=lifetime_s)
            if isinstance(self._backend, Signing)
            else None
        )

    # --- writing --------------------------------------------------------------------------------------------

    def put_object(self, key: str, data: Buffer) -> None:
        """Store an immutable object whose key names its content: writing it twice is the same as once.

        ``data`` is any C-contiguous buffer. It may change when the call is over; where a server answered before it had
        heard all, its connection may hold a view of it until it is closed.
        """
        self._check_key(key)
        with _lent(memoryview(data)) as view:
            if not view.c_contiguous:
                raise InvalidInputError(f"the data of {key!r} is not contiguous")
            # A view without elements cannot be cast.
            with _lent(view.cast("B") if view.nbytes else memoryview(b"")) as content:
                self._backend.put(key, content)
            count(bytes_written=view.nbytes)

    def create(self, key: str, data: bytes) -> None:
        """Store ``data`` if the key is free; of several writers exactly one succeeds.

        ``data`` carries a write id of the caller's, so that an answer lost on the way does not look like a
        conflict. ``ObjectExistsError`` (with the content in ``existing``) if something else is there.
        """
        conditional.create(self._backend, self._check_key(key), data, self._backoff)
        count(bytes_written=len(data))

    def compare_and_swap(self, key: str, new: bytes, expected: Version | None) -> Version:
        """Replace the object if it is still at ``expected`` (``None``: create it) and return its new version.

        ``new`` carries a write id, as in :meth:`create`. ``ConflictError`` if another writer was first: read
        again, decide again.
        """
        version = conditional.compare_and_swap(
            self._backend, self._check_key(key), new, expected, self._backoff
        )
        count(bytes_written=len(new))
        return version

    @contextmanager
    def staged(self, key: str) -> Iterator[Callable[[bytes], None]]:
        """What is yielded takes the bytes that :meth:`create` or :meth:`compare_and_swap` will write to the key.

        Where that saves time it does part of their work ahead, in whatever thread calls it. What comes to nothing is
        gone after the block.
        """
        backend = self._backend
        if not isinstance(backend, Staging):
            yield lambda data: None
            return
        self._check_key(key)
        try:
            yield lambda data: backend.stage(key, data)
        finally:
            backend.unstage(key)

    def check_conditional_writes(self, key: str) -> None:
        """Make sure that the store refuses what it must; call it once, where a repository is born.

        Some servers that speak S3 take conditional puts and ignore the condition: two writers would then
        publish the same version without noticing. Writes and removes ``key``, which must be free and the
        caller's own. ``InvalidInputError`` if the store cannot be used.
        """
        conditional.check(self._backend, self._check_key(key), self._backoff)

    def delete(self, key: str) -> None:
        """Remove the object; no error if it is not there."""
        self._backend.delete(self._check_key(key))


@contextmanager
def _lent(view: memoryview) -> Iterator[memoryview]:
    """Takes a view back at the end of the block: an error that was caught on the way keeps it alive with its frames."""
    try:
        yield view
    finally:
        with suppress(BufferError):  # a connection that is being closed still sends from it
            view.release()
