"""The log as the verbs use it: one call that records, one that wraps a change."""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from textnlp_fast.contents.documents import parse_document
from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    MissingObjectError,
    RepositoryNotFoundError,
    StorageUnavailableError,
    TextnlpFastError,
)
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.audit.actor import claimed_actor
from textnlp_fast.storage.audit.heads import Head
from textnlp_fast.storage.audit.log import AuditLog
from textnlp_fast.storage.audit.records import (
    BEGIN,
    MAX_RECORD_BYTES,
    AuditKey,
    AuditRecord,
    Outcome,
    new_record,
)
from textnlp_fast.storage.audit.witness import Witness
from textnlp_fast.storage.markers import MARKER_BYTES

if TYPE_CHECKING:
    from textnlp_fast.config import Settings

__all__ = [
    "AuditPolicy",
    "Receipt",
    "audited",
    "keys_of",
    "log_of",
    "record",
    "record_read",
    "repository_id",
    "version_keys",
    "witness_for",
]

_REPOSITORY_LIMIT_BYTES: Final = 1 << 16
_VERSION_KEY = re.compile(r"models/(?P<name>.+)/versions/(?P<version>[^/]+)\.json", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPolicy:
    """What is recorded, and as whom.

    `mode` is "on" (changes), "full" (their outcomes too, where those are not plain to see) or "off". `key` proves
    that a record is from one of its holders. `witness_folder` is where this machine remembers the end of each log.
    """

    mode: Literal["off", "on", "full"] = "on"
    reads: bool = False
    actor: str | None = None
    key: AuditKey | None = field(default=None, repr=False)
    witness_folder: Path | None = None

    @classmethod
    def current(cls) -> AuditPolicy:
        """As the environment and the files that it names say, at this moment."""
        from textnlp_fast.config.loading import load_settings  # noqa: PLC0415 - takes longer than all else here

        return cls.of(load_settings())

    @classmethod
    def of(cls, settings: Settings) -> AuditPolicy:
        """What the settings say of the audit log. Raises InvalidInputError for keys that cannot be read."""
        keys = keys_of(settings)
        return cls(
            mode=settings.audit,
            reads=settings.audit_reads,
            actor=settings.actor,
            key=keys[0] if keys else None,
            witness_folder=settings.audit_witness,
        )


def keys_of(settings: Settings) -> tuple[AuditKey, ...]:
    """The audit keys of the settings: the first seals new records, all of them prove old ones."""
    found: tuple[AuditKey, ...] = ()
    if settings.audit_key is not None:
        found += AuditKey.parse(settings.audit_key.get_secret_value(), "the setting audit_key")
    if settings.audit_key_file is not None:
        try:
            text = settings.audit_key_file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(
                f"cannot read audit keys from {settings.audit_key_file}: {error}"
            ) from error
        found += AuditKey.parse(text, str(settings.audit_key_file))
    return found


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a record is: `head` is its number and digest, `operation` what links it to others of the same operation."""

    head: Head
    operation: str


@dataclass(slots=True)
class _Opened:
    repository: str
    log: AuditLog


_logs: weakref.WeakKeyDictionary[ObjectStore, _Opened] = weakref.WeakKeyDictionary()
_logs_lock = threading.Lock()


def record(
    store: ObjectStore,
    *,
    action: str,
    model: str | None = None,
    version: str | None = None,
    detail: Mapping[str, Any] | None = None,
    outcome: Outcome = "done",
    operation: str | None = None,
    policy: AuditPolicy | None = None,
) -> Receipt | None:
    """Appends a record to the repository's audit log: one create once this process has written before.

    `action` is a verb in lower-case words joined by dots (`alias.set`); `detail` an object of texts, integers, true,
    false, null, lists and objects of those, never of secrets. Call it *before* a change (`outcome="intended"`) whose
    effect can be seen in the repository afterwards, with what tells that effect in `detail` (the digest of a document
    that is about to be created): then whatever is killed when, nothing happens unrecorded. Or use :func:`audited`,
    which records around a change.

    None if the policy (that of the settings if not given) says that nothing is recorded. Raises what the store raises:
    whoever must record and cannot does not go on.
    """
    policy = policy or AuditPolicy.current()
    if policy.mode == "off":
        return None
    opened = _open(store, policy)
    actor = claimed_actor(policy.actor)

    def made(
        action: str,
        outcome: Outcome,
        model: str | None,
        version: str | None,
        detail: Mapping[str, Any] | None,
    ) -> AuditRecord:
        return new_record(
            opened.repository,
            action=action,
            outcome=outcome,
            actor=actor,
            model=model,
            version=version,
            detail=detail,
            operation=operation,
        )

    entry = made(action, outcome, model, version, detail)
    head = opened.log.append(
        entry, key=policy.key, begin=lambda: made(BEGIN, "done", None, None, _held_before(store))
    )
    return Receipt(head, entry.operation)


@contextmanager
def audited(
    store: ObjectStore,
    *,
    action: str,
    model: str | None = None,
    version: str | None = None,
    detail: Mapping[str, Any] | None = None,
    ending: Mapping[str, Any] | None = None,
    shows: bool = False,
    policy: AuditPolicy | None = None,
) -> Iterator[Receipt | None]:
    """Records that a change is intended, lets it happen, and records how it ended.

    Killed in between, the log says what was intended, and that nobody knows the end. Where the repository itself
    `shows` it (a version is there or not), success is recorded only by a policy of "full", which makes it one create
    an operation. Failure always is. What stands in `ending` by then goes into the record of success. If the second
    record cannot be written the change has been made all the same; the error says so.
    """
    policy = policy or AuditPolicy.current()
    given: dict[str, Any] = {"action": action, "model": model, "version": version, "policy": policy}
    receipt = record(store, detail=detail, outcome="intended", **given)
    try:
        yield receipt
    except BaseException as error:
        if receipt is not None:
            why = {"error": type(error).__name__, "intended": receipt.head.sequence}
            try:
                record(store, detail=why, outcome="failed", operation=receipt.operation, **given)
            except TextnlpFastError as unrecorded:
                error.__context__ = unrecorded  # what went wrong first is what the caller must hear
        raise
    if receipt is not None and (not shows or policy.mode == "full"):
        try:
            ended = {**(ending or {}), "intended": receipt.head.sequence}
            record(store, detail=ended, outcome="done", operation=receipt.operation, **given)
        except StorageUnavailableError as error:
            error.hint = f"{action} was done; only the record of its success could not be written."
            raise


def record_read(
    store: ObjectStore,
    action: str,
    model: str | None,
    version: str | None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Records that something was read, if the settings ask for that. A read that cannot be recorded fails."""
    # Most ask for nothing, and looking at all settings takes a while.
    if not any(os.environ.get(f"TEXTNLP_FAST_{name}") for name in ("AUDIT_READS", "CONFIG", "ENV_FILE")):
        return
    policy = AuditPolicy.current()
    if policy.reads:
        record(store, action=action, model=model, version=version, detail=detail, policy=policy)


def log_of(store: ObjectStore, policy: AuditPolicy | None = None) -> AuditLog:
    """The log of the repository in a store. Raises RepositoryNotFoundError if there is none."""
    return _open(store, policy or AuditPolicy.current()).log


def repository_id(store: ObjectStore) -> str:
    """The id in `repository.json`. Raises RepositoryNotFoundError."""
    try:
        document = parse_document(
            store.get("repository.json", limit_bytes=_REPOSITORY_LIMIT_BYTES), "repository.json"
        )
    except MissingObjectError:
        raise RepositoryNotFoundError(f"there is no repository at {store.url}") from None
    identity = document.get("id")
    if not isinstance(identity, str) or not re.fullmatch(r"[0-9a-f]{32}", identity):
        raise CorruptDataError("repository.json carries no id")
    return identity


def witness_for(store: ObjectStore, repository: str, policy: AuditPolicy) -> Witness | None:
    """This machine's memory of a log: where the policy says, or beside its state for what is not on this machine."""
    if policy.witness_folder is not None:
        return Witness(policy.witness_folder, repository, store.url)
    if store.url.startswith(("file:", "memory:", "/")):
        return None
    root = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Witness(Path(root) / "textnlp-fast", repository, store.url)


def _open(store: ObjectStore, policy: AuditPolicy) -> _Opened:
    with _logs_lock:
        opened = _logs.get(store)
    if opened is None:
        repository = repository_id(store)
        opened = _Opened(repository, AuditLog(store, witness_for(store, repository, policy)))
        with _logs_lock:
            opened = _logs.setdefault(store, opened)
    return opened


def version_keys(store: ObjectStore) -> Iterator[str]:
    """`NAME@VERSION` of every version in the repository, as its keys say."""
    for meta in store.list("models"):
        match = _VERSION_KEY.fullmatch(meta.key)
        if match is not None and meta.size != MARKER_BYTES:
            yield f"{match['name']}@{match['version']}"


def _held_before(store: ObjectStore) -> dict[str, Any]:
    """What was there before the log: versions pushed by who kept none."""
    found: list[str] = []
    count = size = 0
    for name in version_keys(store):
        count += 1
        size += len(name) + 3
        if size < MAX_RECORD_BYTES // 4:
            found.append(name)
    return {"versions": count, "named": found}
