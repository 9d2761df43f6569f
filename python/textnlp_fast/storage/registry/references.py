"""`models/<name>/refs.json`, the one object of a model that changes. `changing` writes it, by compare-and-swap only."""

from __future__ import annotations

from textnlp_fast.errors import CorruptDataError, MissingObjectError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.objectstore.backend import Version
from textnlp_fast.storage.names import check_name
from textnlp_fast.storage.registry.document import MAX_REFERENCES_BYTES, parse_references
from textnlp_fast.storage.registry.rules import Rules, read_rules, under_rules
from textnlp_fast.storage.registry.state import Alias, Change, Deployment, References, VersionState

__all__ = [
    "Alias",
    "Change",
    "Deployment",
    "References",
    "VersionState",
    "read_references",
    "read_versioned",
    "references_key",
]


def references_key(name: str) -> str:
    """Key of a model's references."""
    return f"models/{check_name(name)}/refs.json"


def read_references(store: ObjectStore, name: str, rules: Rules | None = None) -> References:
    """The references of a model as they are now; empty ones if there are none.

    `rules` are the repository's, read if not given: they say which stages keep a version.
    Raises CorruptDataError and its kinds, UnsupportedFormatError and StorageUnavailableError.
    """
    return under_rules(read_versioned(store, name)[0], rules or read_rules(store))


def read_versioned(store: ObjectStore, name: str) -> tuple[References, Version | None]:
    """The references and what the store calls their state, to be handed back to `compare_and_swap`."""
    try:
        data, version = store.get_versioned(references_key(name), limit_bytes=MAX_REFERENCES_BYTES)
    except MissingObjectError:
        return References(name), None
    what = f"refs.json of {name}"
    references = parse_references(data, what)
    if references.model != name:
        raise CorruptDataError(f"{what} is that of {references.model!r}, stored in its place")
    return references, version
