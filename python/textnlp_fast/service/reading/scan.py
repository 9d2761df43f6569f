"""Reads the repository into a snapshot; what the listing says is unchanged is taken from the one before."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from textnlp_fast.contents.windows import DATA_ERRORS
from textnlp_fast.errors import InvalidInputError, MissingObjectError
from textnlp_fast.objectstore import ObjectMeta
from textnlp_fast.service.reading.facts import VersionFacts, facts_of, unreadable
from textnlp_fast.service.reading.manifests import BoundedVersionManager
from textnlp_fast.service.reading.snapshot import ModelView, Snapshot
from textnlp_fast.storage.markers import MARKER_BYTES
from textnlp_fast.storage.names import check_name, is_version, precedence
from textnlp_fast.storage.registry.references import read_versioned, references_key
from textnlp_fast.storage.registry.rules import Rules, read_rules, under_rules
from textnlp_fast.storage.registry.state import References
from textnlp_fast.telemetry import adopting

__all__ = ["scan", "scan_model"]

_VERSION_KEY = re.compile(r"models/(?P<name>.+)/versions/(?P<version>[^/]+)\.json", re.ASCII)
_REFERENCES_KEY = re.compile(r"models/(?P<name>.+)/refs\.json", re.ASCII)
_SIGNATURE_KEY = re.compile(
    r"signatures/(?P<name>.+)/(?P<version>[^/]+)/(?P<files>[0-9a-f]{64})/[^/]+\.json", re.ASCII
)
_READS_AT_ONCE: Final = 8


@dataclass(slots=True)
class _Listed:
    """What listings say of one model."""

    versions: dict[str, ObjectMeta] = field(default_factory=dict)
    references: str | None = None
    signatures: set[tuple[str, str]] = field(default_factory=set)

    def seen(self, rules: Rules) -> tuple[object, ...]:
        return (
            tuple(sorted((version, meta.etag) for version, meta in self.versions.items())),
            self.references,
            tuple(sorted(self.signatures)),
            (rules.revision, rules.write_id),
        )


def scan(versions: BoundedVersionManager, before: Snapshot | None) -> Snapshot:
    """The repository as it is now: two listings and the rules, and what those say is new.

    Raises StorageUnavailableError and its like; what is harmed is noted at the model or version that it is.
    """
    made_s = time.monotonic()
    store = versions.store
    versions.info()
    known = before.models if before is not None else {}
    listed: dict[str, _Listed] = {}
    for meta in store.list("models"):
        match = _VERSION_KEY.fullmatch(meta.key)
        if match is not None:
            name, version = match["name"], match["version"]
            view = known.get(name)
            if meta.size != MARKER_BYTES and ((view and version in view.versions) or is_version(version)):
                listed.setdefault(name, _Listed()).versions[version] = meta
            continue
        match = _REFERENCES_KEY.fullmatch(meta.key)
        if match is not None:
            listed.setdefault(match["name"], _Listed()).references = meta.etag
    for meta in store.list("signatures"):
        match = _SIGNATURE_KEY.fullmatch(meta.key)
        if match is not None and match["name"] in listed:
            listed[match["name"]].signatures.add((match["version"], match["files"]))
    rules, problems = _rules(versions)
    models: dict[str, ModelView] = {}
    with ThreadPoolExecutor(_READS_AT_ONCE, initializer=adopting()) as pool:
        for name in sorted(name for name, each in listed.items() if each.versions and _is_name(name)):
            view = known.get(name)
            if view is None or view.seen != listed[name].seen(rules):
                view = _view(versions, pool, name, listed[name], rules, view)
            models[name] = view
        _forget_gone(versions, known, models)
    snapshot = Snapshot(models, made_s, problems)
    # Made here, on a thread, and not when the first asks.
    assert snapshot.stamp and snapshot.version_count >= len(models)
    return snapshot


def scan_model(versions: BoundedVersionManager, name: str, before: ModelView | None) -> ModelView | None:
    """One model as it is now; None if there is none."""
    store, listed = versions.store, _Listed()
    for meta in store.list(f"models/{check_name(name)}/versions"):
        match = _VERSION_KEY.fullmatch(meta.key)
        if match is None or match["name"] != name or meta.size == MARKER_BYTES:
            continue
        if is_version(match["version"]):
            listed.versions[match["version"]] = meta
    if not listed.versions:
        return None
    try:
        listed.references = store.head(references_key(name)).etag
    except MissingObjectError:
        listed.references = None
    for meta in store.list(f"signatures/{name}"):
        match = _SIGNATURE_KEY.fullmatch(meta.key)
        if match is not None and match["name"] == name:
            listed.signatures.add((match["version"], match["files"]))
    rules, _ = _rules(versions)
    with ThreadPoolExecutor(_READS_AT_ONCE, initializer=adopting()) as pool:
        return _view(versions, pool, name, listed, rules, before)


def _rules(versions: BoundedVersionManager) -> tuple[Rules, tuple[str, ...]]:
    try:
        return read_rules(versions.store), ()
    except DATA_ERRORS as error:
        return Rules(), (f"registry.json: {error.args[0]}",)


def _view(
    versions: BoundedVersionManager,
    pool: ThreadPoolExecutor,
    name: str,
    listed: _Listed,
    rules: Rules,
    before: ModelView | None,
) -> ModelView:
    references, problem = _references(versions, name, listed.references, before)
    old = before.versions if before is not None else {}
    for version, facts in old.items():
        meta = listed.versions.get(version)
        if meta is None or meta.etag != facts.etag:
            versions.forget(name, version)

    def read(meta: ObjectMeta, version: str) -> VersionFacts | None:
        kept = old.get(version)
        if kept is not None and kept.etag == meta.etag:
            return kept
        try:
            return facts_of(versions.load_listed(meta, name, version), meta.etag)
        except MissingObjectError:
            return None  # deleted since it was listed
        except DATA_ERRORS as error:
            return unreadable(version, meta.etag, str(error.args[0]))

    order = sorted(listed.versions, key=precedence)
    rows = pool.map(read, (listed.versions[version] for version in order), order)
    found = {version: facts for version, facts in zip(order, rows, strict=True) if facts is not None}
    return ModelView(
        name=name,
        versions=found,
        references=under_rules(references, rules),
        references_etag=listed.references,
        signed=frozenset(
            version for version, facts in found.items() if (version, facts.files_id) in listed.signatures
        ),
        seen=listed.seen(rules),
        problem=problem,
    )


def _references(
    versions: BoundedVersionManager, name: str, etag: str | None, before: ModelView | None
) -> tuple[References, str | None]:
    """References, and why they cannot be read."""
    if etag is None:
        return References(name), None
    if before is not None and before.references_etag == etag and before.problem is None:
        return before.references, None
    try:
        return read_versioned(versions.store, name)[0], None
    except DATA_ERRORS as error:
        return References(name), str(error.args[0])


def _forget_gone(
    versions: BoundedVersionManager, before: Mapping[str, ModelView], now: Mapping[str, ModelView]
) -> None:
    for name, view in before.items():
        if name not in now:
            for version in view.versions:
                versions.forget(name, version)


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except InvalidInputError:
        return False
    return True
