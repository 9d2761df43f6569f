"""What a provider has to offer for a file to be moved in parts, and to go on after a kill.

A *source* is read by ranges. A *target* takes parts under an upload id and says which of them it has: that, and not
what this machine remembers, is the truth about an upload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from textnlp_fast.errors import StorageUnavailableError

if TYPE_CHECKING:
    from textnlp_fast.objectstore.transfers.part_body import PartBody
    from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = [
    "DIGEST_KEY",
    "BackOffError",
    "Part",
    "RangeSource",
    "SourceState",
    "UploadPlan",
    "UploadTarget",
    "plan_parts",
    "state_of",
    "whole_chunks",
]

DIGEST_KEY: Final = "textnlp-fast-blake3"
"""The object's metadata field that holds the BLAKE3 digest of its content; Azure spells ``-`` as ``_``."""

_CHUNK_BYTES: Final = 1024  # BLAKE3's: its tree can be cut between two of them

Take = Callable[[int, memoryview], None]
"""Takes bytes that arrived and their offset in the file; the memory is the reader's own again afterwards."""


class BackOffError(StorageUnavailableError):
    """The other side asks for patience, or is silent: 429, 503, a timeout. Fewer streams may help."""

    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SourceState:
    """An object as it is now. ``identity`` changes whenever it is written: an ETag, a generation, a file's times.

    ``digest`` is the BLAKE3 digest in hexadecimal digits that whoever wrote it left in its metadata, if any.
    """

    size: int
    identity: str
    digest: str | None = None


def state_of(size: int, identity: str, metadata: Mapping[str, str]) -> SourceState:
    """An object's state, with what its metadata say; their names may be written with ``_`` or ``-``."""
    fields = {name.lower().replace("_", "-"): value for name, value in metadata.items()}
    return SourceState(size, identity, fields.get(DIGEST_KEY))


@dataclass(frozen=True, slots=True)
class Part:
    """Part ``number``, counted from 0: ``length`` bytes from byte ``offset``."""

    number: int
    offset: int
    length: int


def whole_chunks(part_bytes: int) -> int:
    """The next size of parts whose digests make that of the whole."""
    return -(-part_bytes // _CHUNK_BYTES) * _CHUNK_BYTES


def plan_parts(size: int, part_bytes: int) -> list[Part]:
    """Parts of ``part_bytes``, the last one shorter; none of an empty file."""
    return [
        Part(number, offset, min(part_bytes, size - offset))
        for number, offset in enumerate(range(0, size, part_bytes))
    ]


class RangeSource(Protocol):
    """Something to download. Thread-safe."""

    url: str

    def look(self) -> SourceState:
        """The object now. ``MissingObjectError`` if there is none."""
        ...

    def read(
        self, state: SourceState, offset: int, length: int, buffer: memoryview, take: Take, watch: StreamWatch
    ) -> None:
        """Reads a range of exactly that state in pieces of at most ``buffer``, and hands each to ``take``.

        Tells ``watch`` of each piece. ``SourceChangedError`` if the object is another by now.
        """
        ...

    def close(self) -> None:
        """Closes connections."""
        ...


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """A file that is to become an object, and how it is cut.

    ``digest``: BLAKE3 of the whole, hexadecimal digits. ``crc32``: zlib's CRC-32 of each part. ``crc32c``: CRC-32C of
    the whole, for providers that check that.
    """

    size: int
    digest: str
    part_bytes: int
    crc32: Sequence[int]
    crc32c: int | None = None
    content_type: str = "application/octet-stream"

    @property
    def metadata(self) -> dict[str, str]:
        """What the object says of its content."""
        return {DIGEST_KEY: self.digest}

    @property
    def parts(self) -> list[Part]:
        return plan_parts(self.size, self.part_bytes)


class UploadTarget(Protocol):
    """Somewhere to upload to. Thread-safe."""

    url: str
    sequential: bool
    """Whether parts must come one after the other."""

    def part_bytes(self, size: int, wanted: int | None) -> int:
        """The size of the parts of a file: as wanted, within the provider's limits."""
        ...

    def needs_crc32c(self) -> bool:
        """Whether plans must hold the CRC-32C of the whole."""
        ...

    def put_whole(self, plan: UploadPlan, body: PartBody, watch: StreamWatch) -> SourceState:
        """Makes the object of a file of one part, or none, in one request. Succeeds, too, if that has happened."""
        ...

    def begin(self, plan: UploadPlan) -> str:
        """Begins an upload; the id under which any process can go on with it."""
        ...

    def present(
        self, upload_id: str, plan: UploadPlan, body_of: Callable[[Part], PartBody]
    ) -> Mapping[int, int] | None:
        """Which parts of ``plan`` the provider has, whole and with the right content, by number, and how many bytes
        of others. ``None`` if it no longer knows the upload.

        ``body_of`` gives a part's bytes on this machine, for providers that name only digests of their own.
        """
        ...

    def put(self, upload_id: str, plan: UploadPlan, part: Part, body: PartBody, watch: StreamWatch) -> None:
        """Sends a part; the provider checks what arrived. A part sent twice is the same as once."""
        ...

    def complete(self, upload_id: str, plan: UploadPlan) -> SourceState:
        """Makes the object out of all parts, which the provider has; succeeds, too, if that has happened already."""
        ...

    def abort(self, upload_id: str) -> None:
        """Forgets the upload and its parts; no error if it is gone."""
        ...

    def close(self) -> None:
        """Closes connections."""
        ...
