"""Reads a log from end to end and says what does not fit. Memory does not grow with its length.

What the log alone can show: a record that was edited, removed from the middle, moved, replayed from another place of
the log or from another repository; and references that are older than it. That its end was cut off, or all of it
written anew, only shows against something that the writer of the bucket could not change with it: a key, an anchor
that was kept elsewhere, what this machine remembers, or the versions that are there without a record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from textnlp_fast.errors import (
    CorruptDataError,
    DigestMismatchError,
    MissingObjectError,
    UnsupportedFormatError,
)
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.audit.heads import Head, record_key, sequence_of
from textnlp_fast.storage.audit.log import AuditLog, Stored
from textnlp_fast.storage.audit.recording import repository_id, version_keys
from textnlp_fast.storage.audit.records import (
    BEGIN,
    AuditKey,
    AuditRecord,
    check_mac,
    digest_of,
    parse_record,
)
from textnlp_fast.storage.audit.rollback import SeenReferences
from textnlp_fast.storage.markers import is_marker

__all__ = ["AuditProblem", "AuditReport", "verify_log"]

PUSHES: Final = frozenset({"push", "gc.restore"})
REMOVALS: Final = frozenset({"gc.delete"})
_MOST_PROBLEMS: Final = 1000
_MOST_MANIFESTS: Final = 64  # digests that are remembered of one version, the last ones
_MOST_GONE: Final = 10_000  # versions that are remembered though they are not there
_MANIFEST_LIMIT_BYTES: Final = 512 << 20


@dataclass(frozen=True, slots=True)
class AuditProblem:
    """Something that does not fit; `sequence` is the record that it is about, if it is about one.

    `kind` is one of `missing`, `altered`, `unreadable`, `misplaced`, `foreign`, `broken` (the digest of the record
    before), `forged` (a wrong code), `unproven` (no code where the log has them), `truncated`, `rewritten`, `stray`,
    `unrecorded`, `replaced` and `removed` (versions), and `rolled_back` (references).
    """

    kind: str
    detail: str
    sequence: int | None = None


@dataclass(slots=True)
class AuditReport:
    """What a verification found. `problems` are the first of `problem_count`."""

    records: int = 0
    head: Head | None = None
    proven: int = 0
    """Records whose code is right, where keys were given."""
    unproven_tail: int = 0
    """Records after the last one with a right code: nothing proves who wrote them."""
    versions: int = 0
    """Versions in the repository that were looked for in the log."""
    gone: list[str] = field(default_factory=list)
    """Versions that somebody was about to push and that are not there, though no record says that they were removed:
    the push was killed before they appeared, or somebody removed them past this package."""
    problem_count: int = 0
    problems: list[AuditProblem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.problem_count == 0

    def add(self, kind: str, detail: str, sequence: int | None = None) -> None:
        self.problem_count += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(AuditProblem(kind, detail, sequence))


def verify_log(
    store: ObjectStore,
    log: AuditLog,
    *,
    keys: Sequence[AuditKey] = (),
    anchors: Sequence[Head] = (),
    start: Head | None = None,
    deep: bool = False,
) -> AuditReport:
    """Checks the log of the repository in `store`.

    `keys` prove who could write records; once one is proven, all that follow must be. `anchors` are heads that were
    kept elsewhere: the log must have those records. `start` is a head that is believed: only what follows is read, and
    versions are not looked for. `deep` reads every version's manifest and compares it with its record. Raises
    RepositoryNotFoundError and StorageUnavailableError.
    """
    report = AuditReport()
    # Before the log is read, so that whoever pushes meanwhile is recorded in what is read.
    versions = {} if start is not None else {name: list[str]() for name in version_keys(store)}
    report.versions = len(versions)
    reader = _Reader(report, repository_id(store), keys, anchors, versions)
    reader.read(log, start)
    if start is None:
        _compare(store, report, reader, versions, deep=deep)
    for kind, detail, sequence in reader.references.problems(store):
        report.add(kind, detail, sequence)
    return report


class _Reader:
    """Follows the chain. Keeps the record before, and of each version that exists what was recorded about it."""

    def __init__(
        self,
        report: AuditReport,
        repository: str,
        keys: Sequence[AuditKey],
        anchors: Sequence[Head],
        versions: Mapping[str, list[str]],
    ) -> None:
        self._report = report
        self._repository = repository
        self._keys = keys
        self._anchors: dict[int, set[str]] = {}
        for anchor in anchors:
            self._anchors.setdefault(anchor.sequence, set()).add(anchor.digest)
        self._versions = versions
        self.gone: dict[str, bool] = {}
        """Versions that are not there, and whether a record says that they once were."""
        self.held_before: set[str] = set()
        self.held_count = 0
        self.references = SeenReferences()

    def read(self, log: AuditLog, start: Head | None) -> None:
        report = self._report
        before = start
        if start is not None:
            self._believe(log, start)
        for stored in log.read_all(self._sequences(log, start)):
            if stored.data is None:  # listed, and gone when it was read
                report.add(
                    "missing", f"{stored.error.args[0] if stored.error else 'it is gone'}", stored.sequence
                )
                continue
            if before is None or stored.sequence != before.sequence + 1:
                self._missing(0 if before is None else before.sequence + 1, stored.sequence - 1)
            digest = digest_of(stored.data)
            self._one(stored, before if before and before.sequence + 1 == stored.sequence else None, before)
            before = Head(stored.sequence, digest)
            report.records += 1
            if self._anchors.pop(stored.sequence, {digest}) != {digest}:
                report.add(
                    "rewritten", "it is another record than the one that is remembered", stored.sequence
                )
        report.head = before
        for sequence in self._anchors:
            if start is None or sequence > start.sequence:
                self._forgotten(sequence)
        if self._keys and report.records and not report.proven:
            report.add("unproven", "no record carries a code of the given keys")

    def _sequences(self, log: AuditLog, start: Head | None) -> Iterator[int]:
        first = start.sequence + 1 if start is not None else 0
        for key in log.listed():
            sequence = sequence_of(key)
            if sequence is None:
                self._report.add("stray", f"{key} is no record")
            elif sequence >= first:
                yield sequence

    def _missing(self, first: int, last: int) -> None:
        if last >= first:
            which = f"record {first}" if first == last else f"records {first} to {last}"
            self._report.add("missing", f"{which} are gone" if first != last else f"{which} is gone", first)

    def _believe(self, log: AuditLog, start: Head) -> None:
        """A head that is believed must be there, or what follows it is no part of this log."""
        data = log.read(start.sequence).data
        if data is None:
            self._report.add("truncated", f"record {start.sequence}, to begin after, is gone", start.sequence)
        elif digest_of(data) != start.digest:
            self._report.add("rewritten", "it is another record than the one to begin after", start.sequence)

    def _forgotten(self, sequence: int) -> None:
        head = self._report.head
        if head is None or sequence > head.sequence:
            ends = f"ends at {head.sequence}" if head else "is empty"
            self._report.add("truncated", f"record {sequence} is remembered, and the log {ends}", sequence)
        # One in the middle was told as missing already.

    def _one(self, stored: Stored, previous: Head | None, before: Head | None) -> None:
        report, sequence = self._report, stored.sequence
        assert stored.data is not None
        try:
            if stored.error is not None:
                raise stored.error
            record = parse_record(stored.data, record_key(sequence))
        except DigestMismatchError as error:
            report.add("altered", str(error.args[0]), sequence)
            return
        except (CorruptDataError, UnsupportedFormatError) as error:
            report.add("unreadable", str(error.args[0]), sequence)
            return
        if record.sequence != sequence:
            report.add("misplaced", f"it says that it is record {record.sequence}", sequence)
        if record.repository != self._repository:
            report.add("foreign", f"it is of repository {record.repository}", sequence)
        if previous is not None and record.previous != previous.digest:
            report.add("broken", "it does not name the record before it", sequence)
        if before is None and sequence == 0 and record.previous is not None:
            report.add("broken", "it is the first and names one before it", sequence)
        self._prove(record, stored.data)
        self._note(record)

    def _prove(self, record: AuditRecord, data: bytes) -> None:
        if not self._keys:
            return
        report = self._report
        proven = check_mac(record, data, self._keys)
        if proven:
            report.proven += 1
            report.unproven_tail = 0
            return
        report.unproven_tail += 1
        if proven is False:
            report.add(
                "forged",
                f"its code is not that of key {record.mac[0] if record.mac else ''}",
                record.sequence,
            )
        elif report.proven:
            why = (
                "carries no code" if record.mac is None else f"carries a code of another key, {record.mac[0]}"
            )
            report.add("unproven", f"it {why}, and records before it are proven", record.sequence)

    def _note(self, record: AuditRecord) -> None:
        self.references.note(record)
        if record.action == BEGIN and record.sequence == 0:
            named = record.detail.get("named")
            self.held_before = (
                {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()
            )
            count = record.detail.get("versions")
            self.held_count = count if isinstance(count, int) else 0
        manifest = record.detail.get("manifest")
        if record.model is None or record.version is None:
            return
        name = f"{record.model}@{record.version}"
        if name in self.gone:
            self._note_end(name, record)
        if not isinstance(manifest, str) or len(manifest) != 64:
            return
        known = self._versions.get(name)
        if known is None:
            self._note_gone(name, record)
            return
        known.append(manifest)
        del known[:-_MOST_MANIFESTS]

    def _note_gone(self, name: str, record: AuditRecord) -> None:
        if name in self.gone or len(self.gone) < _MOST_GONE:
            self.gone[name] = self.gone.get(name, False) or record.outcome == "done"

    def _note_end(self, name: str, record: AuditRecord) -> None:
        """What a later record says of a version that is not there: removed, never published, or published."""
        if (record.action in REMOVALS and record.outcome != "failed") or (
            record.action in PUSHES and record.outcome == "failed" and not self.gone[name]
        ):
            del self.gone[name]
        elif record.action in PUSHES and record.outcome == "done":
            self.gone[name] = True


def _compare(
    store: ObjectStore, report: AuditReport, reader: _Reader, versions: Mapping[str, list[str]], *, deep: bool
) -> None:
    """What is in the repository must be in the log."""
    if report.records == 0:
        if versions:
            report.add("unrecorded", f"{len(versions)} versions are there, and no log")
        return
    for name, was_there in reader.gone.items():
        if was_there:
            report.add("removed", f"{name} was published and is not there, and no record says who removed it")
        else:
            report.gone.append(name)
    more_than_named = reader.held_count > len(reader.held_before)
    for name, manifests in versions.items():
        if not manifests:
            if name not in reader.held_before and not more_than_named:
                report.add("unrecorded", f"{name} is there, and no record says who pushed it")
            continue
        if deep:
            try:
                data = store.get(_manifest_key(name), limit_bytes=_MANIFEST_LIMIT_BYTES)
            except MissingObjectError:
                continue  # removed since it was listed
            if blake3_hex(data) not in manifests and not is_marker(data):
                report.add("replaced", f"the manifest of {name} is not the one that was recorded")


def _manifest_key(reference: str) -> str:
    name, _, version = reference.partition("@")
    return f"models/{name}/versions/{version}.json"
