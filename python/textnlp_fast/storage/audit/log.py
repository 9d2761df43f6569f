"""The audit log: create-only objects, each with the digest of the one before, at numbers without gaps.

Whoever appends takes the next number. Of several writers one gets it; the others read, in the answer to their own
attempt, what took it, and chain on that. No lock, no head object to fight over: the create is the whole protocol.
`docs/decisions/0021-an-audit-log-of-create-only-records.md` says what was weighed against it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    MissingObjectError,
    ObjectExistsError,
    StorageUnavailableError,
    TextnlpFastError,
)
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.audit.heads import FOLDER, LARGEST_SEQUENCE, SEGMENT, Head, record_key, sequence_of
from textnlp_fast.storage.audit.records import (
    MAX_RECORD_BYTES,
    AuditKey,
    AuditRecord,
    digest_of,
    placed,
    serialize_record,
)
from textnlp_fast.storage.audit.witness import Witness
from textnlp_fast.telemetry import adopting

__all__ = ["AuditLog", "Stored"]

# Conflicts after which the head is looked for instead of approached step by step.
_PATIENCE: Final = 8
_MOST_CONFLICTS: Final = 10_000
_READS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Stored:
    """An object of the log as it was found: its bytes, or why there are none.

    Of one that is too large for a record, only the first bytes, and `error` says so.
    """

    sequence: int
    data: bytes | None
    error: TextnlpFastError | None = None


class AuditLog:
    """The log of one repository. Thread-safe.

    Once its head is known an append is one create. Where it is not, `witness` knows one that this machine saw, or a
    few requests find it.
    """

    def __init__(self, store: ObjectStore, witness: Witness | None = None) -> None:
        self._store = store
        self._witness = witness
        self._lock = threading.Lock()
        self._head: Head | None = None

    # --- writing ------------------------------------------------------------------------------------------

    def append(self, record: AuditRecord, *, key: AuditKey | None, begin: Callable[[], AuditRecord]) -> Head:
        """Writes a record at the end; `begin` makes the first one of a log that is empty.

        Raises StorageUnavailableError if the store did not answer, in which case the record may be there or not.
        """
        with self._lock:
            head = self._head or (self._witness.read() if self._witness else None) or self.find_head()
            if head is None:
                head = self._put(begin(), None, key, once=True)
            self._head = self._put(record, head, key)
            if self._witness is not None:
                self._witness.write(self._head)
            return self._head

    def _put(
        self, record: AuditRecord, head: Head | None, key: AuditKey | None, *, once: bool = False
    ) -> Head:
        """Writes a record after `head` or after what came since; `once`, whatever came takes its place."""
        for conflict in range(_MOST_CONFLICTS):
            sequence = head.sequence + 1 if head else 0
            if sequence > LARGEST_SEQUENCE:
                raise InvalidInputError(f"the audit log is full: it has {sequence} records")
            data = serialize_record(placed(record, sequence, head.digest if head else None), key)
            try:
                self._store.create(record_key(sequence), data)
            except (ObjectExistsError, CorruptDataError) as taken:
                # The second: an object so large that its like was never written here. It takes its number all the same.
                head = self._taken(sequence, taken)
                if once:
                    return head
                if conflict % _PATIENCE == _PATIENCE - 1:
                    found = self.find_head()
                    head = found if found and found.sequence > head.sequence else head
                continue
            return Head(sequence, digest_of(data))
        raise StorageUnavailableError(
            f"could not append to the audit log of {self._store.url}: {_MOST_CONFLICTS} others were quicker"
        )

    def _taken(self, sequence: int, error: TextnlpFastError) -> Head:
        if isinstance(error, ObjectExistsError):
            return Head(sequence, digest_of(error.existing))
        data = self.read(sequence).data
        if data is None:
            raise error
        return Head(sequence, digest_of(data))

    # --- reading ------------------------------------------------------------------------------------------

    def find_head(self) -> Head | None:
        """The last record, None if there is none: a few requests for a log of any length.

        Numbers have no gaps, so the last folder is found by doubling and halving, and listed.
        """
        low, high = 0, 1
        while high * SEGMENT <= LARGEST_SEQUENCE and self._store.exists(record_key(high * SEGMENT)):
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._store.exists(record_key(middle * SEGMENT)) else (low, middle)
        found = [sequence_of(meta.key) for meta in self._store.list(f"{FOLDER}/{low:09d}")]
        numbers = [number for number in found if number is not None]
        if not numbers:
            return None
        last = self.read(max(numbers))
        return Head(last.sequence, digest_of(last.data)) if last.data is not None else None

    def read(self, sequence: int) -> Stored:
        """One record's bytes, of which no more than a record has are read."""
        key = record_key(sequence)
        try:
            return Stored(sequence, self._store.get(key, limit_bytes=MAX_RECORD_BYTES))
        except MissingObjectError as error:
            return Stored(sequence, None, error)
        except CorruptDataError as error:
            return Stored(sequence, bytes(self._store.get_range(key, 0, MAX_RECORD_BYTES)), error)

    def read_all(self, sequences: Iterable[int]) -> Iterator[Stored]:
        """Records in the order asked for, a few at a time on their way."""
        with ThreadPoolExecutor(_READS_AT_ONCE, initializer=adopting()) as pool:
            waiting: deque[Future[Stored]] = deque()
            for sequence in sequences:
                waiting.append(pool.submit(self.read, sequence))
                if len(waiting) >= 2 * _READS_AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def listed(self) -> Iterator[str]:
        """What lies below the log's folder, in order, records or not."""
        return (meta.key for meta in self._store.list(FOLDER))

    def backwards(self) -> Iterator[Stored]:
        """Records from the last one to the first; what is missing in between is left out."""
        head = self.find_head()
        if head is not None:
            yield from (one for one in self.read_all(range(head.sequence, -1, -1)) if one.data is not None)
