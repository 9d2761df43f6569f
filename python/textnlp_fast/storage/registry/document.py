"""`refs.json` as bytes: its writer, and its reader, which trusts nothing. `docs/format.md` ("References") states it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.contents.documents import (
    Broken,
    check_digest,
    parse_document,
    seal_document,
    take,
    take_size,
)
from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.storage.names import check_name, is_version
from textnlp_fast.storage.registry.grammar import (
    check_actor,
    check_alias,
    check_note,
    check_stage,
    check_tag_key,
    check_tag_value,
    check_target,
)
from textnlp_fast.storage.registry.state import Alias, Change, Deployment, References, VersionState

__all__ = [
    "MAX_REFERENCES_BYTES",
    "MOST_PREVIOUS",
    "change_document",
    "parse_references",
    "read_archive",
    "read_change",
    "serialize_references",
]

MAX_REFERENCES_BYTES: Final = 16 << 20
MOST_PREVIOUS: Final = 64
"""Earlier versions that a deployment remembers for its rollbacks."""
# Versions, aliases, tags, deployments or history of one document, each.
_MOST_ENTRIES: Final = 100_000
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_ACTION = re.compile(r"[a-z]{1,16}(\.[a-z]{1,16})?", re.ASCII)


def serialize_references(references: References) -> bytes:
    """The sealed document of references that were changed at least once."""
    document: dict[str, Any] = {
        "format": 1,
        "model": references.model,
        "revision": references.revision,
        "write_id": references.history[-1].id,
        "versions": {
            version: _state_document(state)
            for version, state in references.versions.items()
            if not state.is_empty
        },
        "tags": dict(references.tags),
        "aliases": {
            name: {"version": alias.version, "protected": alias.protected}
            for name, alias in references.aliases.items()
        },
        "deployments": {
            target: {
                "version": each.version,
                "since": each.since,
                "by": each.by,
                "note": each.note,
                "state": each.state,
                "previous": list(each.previous),
                "number": each.number,
            }
            for target, each in references.deployments.items()
        },
        "retiring": sorted(references.retiring),
        "history": [change_document(change) for change in references.history],
        "archive": None if references.archive is None else list(references.archive),
    }
    return seal_document(document)


def _state_document(state: VersionState) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if state.stage is not None:
        document["stage"] = state.stage
    if state.tags:
        document["tags"] = dict(state.tags)
    if state.pinned is not None:
        document["pinned"] = state.pinned
    return document


def change_document(change: Change) -> dict[str, Any]:
    """A change as JSON."""
    return {
        "number": change.number,
        "id": change.id,
        "at": change.at,
        "by": change.by,
        "action": change.action,
        "detail": dict(change.detail),
    }


def parse_references(data: bytes | memoryview, what: str = "refs.json") -> References:
    """Reads and validates references.

    Raises UnsupportedFormatError for a newer format, DigestMismatchError if bytes of it changed, CorruptDataError for
    whatever breaks a rule of the format.
    """
    if len(data) > MAX_REFERENCES_BYTES:
        raise CorruptDataError(f"{what} has {len(data)} bytes; at most {MAX_REFERENCES_BYTES} are read")
    document = parse_document(data, what)
    try:
        return _build(document)
    except Broken as error:
        raise CorruptDataError(f"{what} is not valid: {error}") from None
    except InvalidInputError as error:
        raise CorruptDataError(f"{what} is not valid: {error.args[0]}") from None


def _build(document: Mapping[str, Any]) -> References:
    where = "the document"
    revision = take_size(document, "revision", where)
    history = tuple(
        read_change(value) for value in _entries(take(document, "history", list, where), "history")
    )
    archive = read_archive(document.get("archive"))
    _check_history(history, revision, archive)
    if take(document, "write_id", str, where) != history[-1].id:
        raise Broken("write_id is not that of the last change")
    return References(
        model=check_name(take(document, "model", str, where)),
        revision=revision,
        versions={
            _version(version): _read_state(state, f"version {version}")
            for version, state in _entries(take(document, "versions", dict, where), "versions").items()
        },
        tags=_read_tags(take(document, "tags", dict, where)),
        aliases={
            check_alias(name): _read_alias(value, f"alias {name}")
            for name, value in _entries(take(document, "aliases", dict, where), "aliases").items()
        },
        deployments={
            check_target(target): _read_deployment(value, f"deployment {target}", revision)
            for target, value in _entries(take(document, "deployments", dict, where), "deployments").items()
        },
        retiring=frozenset(
            _version(version) for version in _entries(take(document, "retiring", list, where), "retiring")
        ),
        history=history,
        archive=archive,
    )


def _check_history(history: tuple[Change, ...], revision: int, archive: tuple[int, str] | None) -> None:
    """Raises Broken unless the changes are those from the archive's last to the revision, none missing."""
    if not history:
        raise Broken("it has no history")
    first = 1 if archive is None else archive[0] + 1
    if [change.number for change in history] != list(range(first, first + len(history))):
        raise Broken(f"the changes of its history are not numbered from {first} on")
    if history[-1].number != revision:
        raise Broken(f"its history ends with change {history[-1].number} and its revision is {revision}")


def read_archive(value: object) -> tuple[int, str] | None:
    """What names a block of older history, or None. Raises Broken."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise Broken("archive is neither null nor [number, digest]")
    number = take_size({"number": value[0]}, "number", "archive")
    if number < 1:
        raise Broken("archive ends before the first change")
    return number, check_digest(value[1], "the digest of archive")


def read_change(value: object) -> Change:
    """Reads what `change_document` wrote. Raises Broken or InvalidInputError."""
    if not isinstance(value, dict):
        raise Broken("a change is not an object")
    number = take_size(value, "number", "a change")
    where = f"change {number}"
    action = take(value, "action", str, where)
    if _ACTION.fullmatch(action) is None:
        raise Broken(f"{where} has the odd action {action!r}")
    detail = take(value, "detail", dict, where)
    texts = [*detail, *detail.values()]
    if len(detail) > 16 or not all(isinstance(each, str) and len(each) <= 1024 for each in texts):
        raise Broken(f"the detail of {where} is not a few short texts")
    identity = take(value, "id", str, where)
    if _ID.fullmatch(identity) is None:
        raise Broken(f"{where} has no id of 32 hex digits")
    return Change(
        number,
        identity,
        _time(value, "at", where),
        check_actor(take(value, "by", str, where)),
        action,
        detail,
    )


def _read_state(value: object, where: str) -> VersionState:
    if not isinstance(value, dict):
        raise Broken(f"{where} is not an object")
    stage, pinned = value.get("stage"), value.get("pinned")
    if stage is not None and (not isinstance(stage, str) or check_stage(stage) != stage):
        raise Broken(f"{where} has an odd stage")
    return VersionState(
        stage, _read_tags(value.get("tags", {})), None if pinned is None else check_note(pinned)
    )


def _read_tags(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Broken("tags are not an object")
    return {check_tag_key(key): check_tag_value(text) for key, text in _entries(value, "tags").items()}


def _read_alias(value: object, where: str) -> Alias:
    if not isinstance(value, dict):
        raise Broken(f"{where} is not an object")
    return Alias(_version(value.get("version")), take(value, "protected", bool, where))


def _read_deployment(value: object, where: str, revision: int) -> Deployment:
    if not isinstance(value, dict):
        raise Broken(f"{where} is not an object")
    version = _version(value.get("version"))
    previous = tuple(_version(each) for each in take(value, "previous", list, where))
    if len(previous) > MOST_PREVIOUS or any(
        a == b for a, b in zip((version, *previous), previous, strict=False)
    ):
        raise Broken(f"{where} has too many earlier versions, or the same one twice in a row")
    number = take_size(value, "number", where, revision)
    if number < 1:
        raise Broken(f"{where} was made by no change")
    return Deployment(
        version=version,
        since=_time(value, "since", where),
        by=check_actor(take(value, "by", str, where)),
        note=check_note(take(value, "note", str, where)),
        state=check_note(take(value, "state", str, where)),
        previous=previous,
        number=number,
    )


def _version(value: object) -> str:
    if not isinstance(value, str) or not is_version(value):
        raise Broken(f"{value!r} is not a version")
    return value


def _time(document: Mapping[str, Any], key: str, where: str) -> str:
    value: str = take(document, key, str, where)
    if _TIME.fullmatch(value) is None:
        raise Broken(f"{key} of {where} is no time like 2025-01-31T12:00:00Z")
    return value


def _entries(values: Any, what: str) -> Any:
    if len(values) > _MOST_ENTRIES:
        raise Broken(f"{what} has {len(values)} entries; at most {_MOST_ENTRIES} are read")
    return values
