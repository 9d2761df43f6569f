"""What is in use: the objects that versions and pushes under way name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from textnlp_fast.contents.windows import DATA_ERRORS, with_context
from textnlp_fast.errors import MissingObjectError
from textnlp_fast.objectstore import ObjectMeta, ObjectStore
from textnlp_fast.storage.garbage.intents import Intent, list_intents, read_intent
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.version_manager import VersionManager
from textnlp_fast.telemetry import adopting

__all__ = ["Usage", "UsageReader", "VersionFacts"]

_READERS = 16


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What rules and plans ask of a version. Sizes in bytes; `raw_bytes` are its files'."""

    model: str
    version: str
    created_at: str
    raw_bytes: int
    objects: frozenset[str]
    coded_against: tuple[str, str] | None

    @property
    def name(self) -> str:
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True)
class Usage:
    """A scan's result. `intents` were read before the versions were."""

    versions: tuple[VersionFacts, ...]
    intents: tuple[Intent, ...]

    @property
    def objects(self) -> set[str]:
        """Every object that something names."""
        by_versions = (facts.objects for facts in self.versions)
        return set().union(*by_versions, *(intent.objects for intent in self.intents))


class UsageReader:
    """Scans the repository, and reads a manifest again only if it has changed since the last scan."""

    def __init__(self, store: ObjectStore, versions: VersionManager) -> None:
        self._store = store
        self._versions = versions
        self._known: dict[tuple[str, int, str], VersionFacts] = {}

    def scan(self) -> Usage:
        """Reads intents first and manifests second: a push that ends in between is seen in one of them.

        Raises CorruptDataError or UnsupportedFormatError where something cannot be read: then nobody knows what it
        needs, and nothing may be deleted.
        """
        intents = tuple(
            intent for identity in list_intents(self._store) if (intent := self._intent(identity))
        )
        listed = {(each[0].key, each[0].size, each[0].etag): each for each in self._versions.manifest_keys()}
        new = [key for key in listed if key not in self._known]
        with ThreadPoolExecutor(_READERS, initializer=adopting()) as pool:
            for key, facts in zip(new, pool.map(lambda key: self._facts(*listed[key]), new), strict=True):
                if facts is not None:
                    self._known[key] = facts
        self._known = {key: self._known[key] for key in listed if key in self._known}
        return Usage(tuple(self._known.values()), intents)

    def _intent(self, identity: str) -> Intent | None:
        try:
            return read_intent(self._store, identity)
        except DATA_ERRORS as error:
            raise with_context(error, _REFUSED) from error

    def _facts(self, meta: ObjectMeta, name: str, version: str) -> VersionFacts | None:
        try:
            manifest = self._versions.load_listed(meta, name, version)
        except MissingObjectError:
            return None  # deleted since it was listed
        except DATA_ERRORS as error:
            raise with_context(error, _REFUSED) from error
        return facts_of(manifest)


_REFUSED = "nothing was collected, since nobody knows what this needs"


def facts_of(manifest: Manifest) -> VersionFacts:
    """The facts of a manifest."""
    return VersionFacts(
        manifest.model,
        manifest.version,
        manifest.created_at,
        manifest.raw_bytes,
        frozenset(manifest.objects),
        manifest.coded_against,
    )


def stored_objects(store: ObjectStore) -> Iterator[ObjectMeta]:
    """Every object that has an object's name."""
    for meta in store.list("objects"):
        first, _, digest = meta.key.removeprefix("objects/").partition("/")
        if len(digest) == 64 and digest.startswith(first):
            yield meta


def digest_of(meta: ObjectMeta) -> str:
    """The name of an object."""
    return meta.key.rpartition("/")[2]
