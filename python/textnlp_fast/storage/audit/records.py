"""One record of the audit log: its fields, its bytes, and the key that proves who could have written it.

`docs/format.md` ("Audit log") states the document. Reading trusts nothing: whoever may write to the bucket may have
written this.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Final, Literal, get_args

from textnlp_fast.contents.documents import (
    MAX_SIZE,
    Broken,
    canonical,
    check_digest,
    parse_document,
    seal_document,
    take,
    take_size,
)
from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.hashing import blake3_hex

__all__ = [
    "BEGIN",
    "MAX_RECORD_BYTES",
    "AuditKey",
    "AuditRecord",
    "Outcome",
    "check_mac",
    "digest_of",
    "new_record",
    "parse_record",
    "placed",
    "serialize_record",
]

MAX_RECORD_BYTES: Final = 1 << 20
MAX_DETAIL_BYTES: Final = 1 << 18
MIN_KEY_BYTES: Final = 32
BEGIN: Final = "audit.begin"
"""The action of record 0, which says what the repository held before its log began."""

Outcome = Literal["intended", "done", "failed"]
"""`intended` was written before the change, `done` and `failed` after it or after the attempt."""

_ACTION = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{32}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_MAX_TEXT: Final = 4096
_MAX_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class AuditKey:
    """A secret that writers share: what carries its code (HMAC-SHA-256) was written by one of them."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < MIN_KEY_BYTES:
            raise InvalidInputError(
                f"an audit key has at least {MIN_KEY_BYTES} bytes, this one {len(self.secret)}",
                hint="Make one with `openssl rand -hex 32`.",
            )

    @property
    def id(self) -> str:
        """Names the key without telling it."""
        return hmac.new(self.secret, b"textnlp-fast audit key", hashlib.sha256).hexdigest()[:16]

    def code(self, document: Mapping[str, Any]) -> str:
        """The code of a record's document, which has neither `digest` nor `mac`."""
        return hmac.new(self.secret, canonical(document), hashlib.sha256).hexdigest()

    @classmethod
    def parse(cls, text: str, where: str) -> tuple[AuditKey, ...]:
        """Keys in hex, one a line: the first seals new records, all of them prove old ones."""
        lines = [line.strip() for line in text.splitlines()]
        try:
            keys = tuple(cls(bytes.fromhex(line)) for line in lines if line and not line.startswith("#"))
        except ValueError as error:
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError(
                f"{where} holds something that is no key in hex digits",
                hint="Make a key with `openssl rand -hex 32`, one a line.",
            ) from None
        if not keys:
            raise InvalidInputError(f"{where} holds no key", hint="Make one with `openssl rand -hex 32`.")
        return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """What one record says. `actor` and `time` are what the writer claimed, not what anyone proved.

    `previous` is the BLAKE3 digest of the bytes of the record before it, None in the first. `mac` is
    (key id, code) if the writer had a key.
    """

    sequence: int
    previous: str | None
    repository: str
    time: str
    operation: str
    action: str
    outcome: Outcome
    actor: Mapping[str, str]
    model: str | None = None
    version: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    write_id: str = ""
    mac: tuple[str, str] | None = None


def new_record(
    repository: str,
    *,
    action: str,
    outcome: Outcome,
    actor: Mapping[str, str],
    model: str | None,
    version: str | None,
    detail: Mapping[str, Any] | None,
    operation: str | None,
) -> AuditRecord:
    """A record without its place in the chain. Raises InvalidInputError for what no record may hold."""
    if not _ACTION.fullmatch(action):
        raise InvalidInputError(f"{action!r} is not an action: lower-case words joined by dots, as alias.set")
    record = AuditRecord(
        sequence=0,
        previous=None,
        repository=repository,
        time=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        operation=operation or secrets.token_hex(16),
        action=action,
        outcome=outcome,
        actor=dict(actor),
        model=model,
        version=version,
        detail=dict(detail or {}),
        write_id=secrets.token_hex(16),
    )
    try:
        _check_detail(record.detail, "the detail")
        _build(_document(record))  # what is written can be read
    except (Broken, CorruptDataError) as error:
        raise InvalidInputError(f"{action}: {error}") from None
    limit = MAX_RECORD_BYTES // 2 if action == BEGIN else MAX_DETAIL_BYTES
    size = len(canonical(record.detail))
    if size > limit:
        raise InvalidInputError(f"the detail of {action} takes {size} bytes; a record has room for {limit}")
    return record


def _document(record: AuditRecord) -> dict[str, Any]:
    return {
        "action": record.action,
        "actor": dict(record.actor),
        "detail": dict(record.detail),
        "format": 1,
        "model": record.model,
        "operation": record.operation,
        "outcome": record.outcome,
        "previous": record.previous,
        "repository": record.repository,
        "sequence": record.sequence,
        "time": record.time,
        "version": record.version,
        "write_id": record.write_id,
    }


def serialize_record(record: AuditRecord, key: AuditKey | None) -> bytes:
    """The record's bytes, sealed, with the code of `key` if there is one."""
    document = _document(record)
    if key is not None:
        document["mac"] = [key.id, key.code(document)]
    return seal_document(document)


def parse_record(data: bytes | memoryview, what: str) -> AuditRecord:
    """Reads a record.

    Raises CorruptDataError, DigestMismatchError where bytes of it changed, and UnsupportedFormatError.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise CorruptDataError(f"{what} is {len(data)} bytes; a record has at most {MAX_RECORD_BYTES}")
    document = parse_document(data, what)
    try:
        return _build(document)
    except Broken as error:
        raise CorruptDataError(f"{what} is not a valid audit record: {error}") from None


def check_mac(record: AuditRecord, data: bytes, keys: Sequence[AuditKey]) -> bool | None:
    """Whether the code of a record is right; None if it carries none, or one of a key that is not among `keys`."""
    if record.mac is None:
        return None
    key = next((key for key in keys if key.id == record.mac[0]), None)
    if key is None:
        return None
    # Over what was read, unknown fields included, not over what this reader made of it.
    document = parse_document(data, "the record")
    document.pop("mac")
    return hmac.compare_digest(key.code(document), record.mac[1])


def _build(document: Mapping[str, Any]) -> AuditRecord:
    where = "the record"
    outcome = take(document, "outcome", str, where)
    if outcome not in get_args(Outcome):
        raise Broken(f"its outcome is none of {', '.join(get_args(Outcome))}")
    actor = take(document, "actor", dict, where)
    if len(actor) > 16 or not all(
        isinstance(value, str) and len(value) <= _MAX_TEXT for value in actor.values()
    ):
        raise Broken("its actor is not an object of a few texts")
    detail = take(document, "detail", dict, where)
    _check_detail(detail, "its detail")
    previous = document.get("previous")
    return AuditRecord(
        sequence=take_size(document, "sequence", where),
        previous=None if previous is None else check_digest(previous, "previous"),
        repository=_matching(document, "repository", _HEX),
        time=_matching(document, "time", _TIME),
        operation=_matching(document, "operation", _HEX),
        action=_matching(document, "action", _ACTION),
        outcome=outcome,
        actor=actor,
        model=_text_or_none(document, "model"),
        version=_text_or_none(document, "version"),
        detail=detail,
        write_id=_matching(document, "write_id", _HEX),
        mac=_mac(document),
    )


def _mac(document: Mapping[str, Any]) -> tuple[str, str] | None:
    mac = document.get("mac")
    if mac is None:
        return None
    if not isinstance(mac, list) or len(mac) != 2 or not all(isinstance(part, str) for part in mac):
        raise Broken("its mac is not a pair of texts")
    return mac[0], check_digest(mac[1], "the code of its mac")


def _matching(document: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value: str = take(document, name, str, "the record")
    if not pattern.fullmatch(value):
        raise Broken(f"its {name} is not what a {name} looks like")
    return value


def _text_or_none(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > _MAX_TEXT):
        raise Broken(f"its {name} is no text of at most {_MAX_TEXT} characters")
    return value


def _check_detail(value: object, where: str, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise Broken(f"{where} is nested deeper than {_MAX_DEPTH}")
    if isinstance(value, dict):
        for name, below in value.items():
            if not isinstance(name, str):
                raise Broken(f"{where} has a key that is no text")
            _check_detail(below, where, depth + 1)
    elif isinstance(value, list | tuple):
        for below in value:
            _check_detail(below, where, depth + 1)
    elif isinstance(value, int):
        if abs(value) > MAX_SIZE:
            raise Broken(f"{where} holds the number {value}, over {MAX_SIZE}")
    elif not (value is None or isinstance(value, str)):
        raise Broken(
            f"{where} holds {type(value).__name__}; it may hold texts, integers, true, false and null"
        )


def placed(record: AuditRecord, sequence: int, previous: str | None) -> AuditRecord:
    """The record at its place in the chain."""
    return replace(record, sequence=sequence, previous=previous)


def digest_of(data: bytes | memoryview) -> str:
    """What the next record calls this one: the digest of its bytes, readable or not.

    Of an object that is no record because it is too large, the first bytes count.
    """
    return blake3_hex(memoryview(data)[:MAX_RECORD_BYTES])
