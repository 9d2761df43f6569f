"""Intents: what a push is about to publish, and the objects that it relies on.

Written before the last look at `garbage.json`, removed once it is known how the push ended. Its id is the write id of
the manifest that is to come. One that stays belongs to a push that was killed, or that heard no answer: a collector
moves the version's key on, so that the manifest can never come, and then removes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from textnlp_fast.contents.documents import Broken, check_digest, parse_document, seal_document, take
from textnlp_fast.errors import CorruptDataError, MissingObjectError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.manifest import Manifest

__all__ = ["Intent", "list_intents", "read_intent", "remove_intent", "write_intent"]

_FOLDER: Final = "pushes"
_KEY: Final = re.compile(r"pushes/(?P<id>[0-9a-f]{32})\.json", re.ASCII)
_LIMIT_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Intent:
    """The version that a push is about to publish, and its objects.

    `replaces` is the write id of the manifest that is to give way, None if there is to be none.
    """

    id: str
    model: str
    version: str
    objects: frozenset[str]
    replaces: str | None = None


def _key(identity: str) -> str:
    return f"{_FOLDER}/{identity}.json"


def write_intent(store: ObjectStore, manifest: Manifest, replaces: str | None) -> None:
    """Says that this manifest is about to be published, in place of one with the write id `replaces` if given."""
    document = {
        "created_at": manifest.created_at,
        "format": 1,
        "model": manifest.model,
        "objects": sorted(manifest.objects),
        "replaces": replaces,
        "version": manifest.version,
        "write_id": manifest.write_id,
    }
    store.create(_key(manifest.write_id), seal_document(document))


def remove_intent(store: ObjectStore, identity: str) -> None:
    """Takes the intent back: the push is over, and it is known how it ended."""
    store.delete(_key(identity))


def list_intents(store: ObjectStore) -> Iterator[str]:
    """The ids of all intents."""
    for meta in store.list(_FOLDER):
        match = _KEY.fullmatch(meta.key)
        if match is not None:
            yield match["id"]


def read_intent(store: ObjectStore, identity: str) -> Intent | None:
    """The intent, None if it is gone meanwhile: then its push is over. Raises CorruptDataError."""
    key = _key(identity)
    try:
        document = parse_document(store.get(key, limit_bytes=_LIMIT_BYTES), key)
    except MissingObjectError:
        return None
    try:
        objects = frozenset(check_digest(each, "an object") for each in take(document, "objects", list, key))
        model, version = take(document, "model", str, key), take(document, "version", str, key)
        replaces = document.get("replaces")
        if replaces is not None and not isinstance(replaces, str):
            raise Broken("replaces is no write id")
        return Intent(identity, model, version, objects, replaces)
    except Broken as error:
        raise CorruptDataError(f"{key} is not valid: {error}") from None
