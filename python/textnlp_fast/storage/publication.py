"""One try to publish a version beside collections that may delete what it relies on.

The order is the point. `begin` looks at `garbage.json` before anything else of the push looks at objects. `publish`
writes an intent, looks again, takes what is condemned out of it, and only then writes the manifest, on the condition
that the version's key is as `begin` saw it. Whatever was sentenced meanwhile makes the try void: `OvertakenError`, and
the push plans anew. `docs/decisions/0019-collecting-beside-writers.md` has the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from textnlp_fast.contents.entries import FileEntry
from textnlp_fast.errors import (
    AuthenticationError,
    ConflictError,
    ObjectExistsError,
    StorageUnavailableError,
    TextnlpFastError,
    VersionExistsError,
)
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.audit import AuditPolicy
from textnlp_fast.storage.garbage.document import Garbage, read_garbage, swap_garbage
from textnlp_fast.storage.garbage.intents import remove_intent, write_intent
from textnlp_fast.storage.manifest import Manifest, files_digest, serialize_manifest
from textnlp_fast.storage.names import manifest_key
from textnlp_fast.storage.publishing import PUSH, publish_version
from textnlp_fast.storage.version_manager import VersionManager
from textnlp_fast.telemetry import adopted

__all__ = ["ObjectNames", "OvertakenError", "Publication"]

_MOST_SUFFIXES: Final = 1 << 16


class OvertakenError(ConflictError):
    """A collection, or a deletion of the version, came between the plan and its publication."""

    default_hint = "Push again: what was uploaded and is still there is not sent twice."


@dataclass(frozen=True, slots=True)
class ObjectNames:
    """Which names new objects get: the digest of their bytes, with a suffix where it would be a name that was swept.

    Follows from `garbage.json` alone, so a repeated push makes the same objects. To heal a version it has to make
    those that the version names: `wanted` are these, and `salts` the suffixes that they had.
    """

    garbage: Garbage
    wanted: frozenset[str] = frozenset()
    salts: Mapping[str, str] | None = None

    def suffixes(self) -> Iterator[bytes]:
        """Bytes to append, in the order in which they are to be tried."""
        if self.salts is not None:
            yield b""
            yield from sorted({bytes.fromhex(salt) for salt in self.salts.values()})
            yield b""
            return
        for number in range(_MOST_SUFFIXES):
            first = not self.garbage.era and not number
            yield b"" if first else self.garbage.era.to_bytes(4, "little") + number.to_bytes(4, "little")

    def is_free(self, digest: str, *, last: bool) -> bool:
        """Whether the object may have this name."""
        if self.salts is not None:
            return last or digest in self.wanted
        return not self.garbage.is_gone(digest)


class Publication:
    """The state of the repository that one try to publish started from.

    Nothing is built on `unwanted` objects, though nobody is about to delete them. `was_sent` says whether `publish`
    came to the manifest: if it did and failed for want of an answer, the version may be there all the same.
    """

    def __init__(
        self,
        store: ObjectStore,
        versions: VersionManager,
        name: str,
        version: str,
        unwanted: frozenset[str] = frozenset(),
    ) -> None:
        self._unwanted = unwanted
        self._name, self._version = name, version
        self._store = store
        self._versions = versions
        self.was_sent = False
        self._garbage = read_garbage(store).garbage
        self.existing, self._place = versions.state(name, version)
        marked = self.existing is None and self._place is not None
        self.deleted_files = versions.deleted_files(name, version) if marked else None

    def refuse_other_files(self, files: Iterable[FileEntry]) -> None:
        """Raises VersionExistsError if the version has other files, or had, before it was deleted."""
        before = self.deleted_files if self.existing is None else files_digest(self.existing.files)
        if before is not None and before != files_digest(files):
            how = "was deleted, and had" if self.existing is None else "is published already, with"
            raise VersionExistsError(f"{self._name}@{self._version} {how} other files")

    def gone(self, objects: Iterable[str]) -> set[str]:
        """Those that nothing may be built on, though they may be there."""
        return {digest for digest in objects if digest in self._unwanted or self._garbage.is_gone(digest)}

    def names(self, *, again: Manifest | None) -> ObjectNames:
        """How new objects are to be named; `again` is the version whose objects are to be made again, if one is."""
        if again is None:
            return ObjectNames(self._garbage)
        return ObjectNames(self._garbage, frozenset(again.objects), again.salts)

    def was_overtaken(self) -> bool:
        """Whether a collection has gone on since."""
        now = read_garbage(self._store).garbage
        before = self._garbage
        return (now.era, now.sentenced, now.swept) != (before.era, before.sentenced, before.swept)

    def publish(
        self,
        manifest: Manifest,
        *,
        action: str = PUSH,
        uploaded: Callable[[], object] = lambda: None,
        policy: AuditPolicy | None = None,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        """Makes the version visible, in place of `existing` if there is one.

        What has to be there before the manifest comes to be side by side: the intent with the look at `garbage.json`
        that follows it, the audit log's record (`action` is what it calls this, `policy` its policy, if not that of the
        settings), and the objects, if they are still on their way: `uploaded` waits for these. `pool` has a thread for
        that, and for taking the intent back when the version is there, which nobody has to wait for then.

        Raises ObjectExistsError if another push was first, OvertakenError, what `uploaded` raises.
        """
        if pool is None:
            with ThreadPoolExecutor(1, "textnlp-fast-announce") as own:
                self._publish(manifest, action, uploaded, policy, own)
            self._take_back(manifest)
        else:
            self._publish(manifest, action, uploaded, policy, pool)
            pool.submit(adopted(self._take_back), manifest)

    def _publish(
        self,
        manifest: Manifest,
        action: str,
        uploaded: Callable[[], object],
        policy: AuditPolicy | None,
        pool: ThreadPoolExecutor,
    ) -> None:
        replaces = None if self.existing is None else self.existing.write_id

        def announce() -> None:
            write_intent(self._store, manifest, replaces)
            self._secure(manifest)

        def ready() -> None:
            announced.result()
            staged.result()
            uploaded()
            self.was_sent = True

        try:
            with self._store.staged(manifest_key(manifest.model, manifest.version)) as stage:
                announced = pool.submit(adopted(announce))
                data = serialize_manifest(manifest)
                staged = pool.submit(stage, data)
                try:
                    publish_version(
                        self._store,
                        self._versions,
                        manifest,
                        data,
                        self._place,
                        action=action,
                        policy=policy,
                        ready=ready,
                    )
                finally:
                    wait([announced, staged])  # from here on the intent is there or it is not
        except TextnlpFastError as error:
            # Did the manifest not go out, or was it refused, then it will not come any more. After any other error it
            # may, and the intent stays for a collector to settle.
            if not self.was_sent or isinstance(error, ConflictError):
                self._take_back(manifest)
            if isinstance(error, ConflictError) and not isinstance(
                error, (OvertakenError, ObjectExistsError)
            ):
                raise OvertakenError(str(error.args[0])) from error
            raise

    def retire(self) -> None:
        """Puts a marker where `publish` would have written. Raises ConflictError if the key has changed."""
        assert self.existing is None
        self._versions.retire(self._name, self._version, self._place, self.deleted_files)

    def _take_back(self, manifest: Manifest) -> None:
        with suppress(StorageUnavailableError, AuthenticationError):  # a collector removes it later
            remove_intent(self._store, manifest.write_id)

    def _secure(self, manifest: Manifest) -> None:
        """Makes sure that no collector deletes the manifest's objects from here on."""
        while True:
            seen = read_garbage(self._store)
            if seen.garbage.era != self._garbage.era or any(map(seen.garbage.is_gone, manifest.objects)):
                raise OvertakenError(
                    f"objects that {manifest.model}@{manifest.version} relies on were collected meanwhile"
                )
            condemned = manifest.objects.keys() & seen.garbage.condemned.keys()
            if not condemned:
                return
            kept = {key: since for key, since in seen.garbage.condemned.items() if key not in condemned}
            with suppress(ConflictError):
                swap_garbage(self._store, seen, replace(seen.garbage, condemned=kept))
                return
