"""Names and versions: which there are, which is meant, and the one write that publishes a new one."""

from __future__ import annotations

import os
import re
import secrets
import threading
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from textnlp_fast.contents.documents import MAX_DOCUMENT_BYTES, parse_document, seal_document
from textnlp_fast.contents.entries import MAX_WINDOW_BYTES, MIN_WINDOW_BYTES
from textnlp_fast.errors import (
    ConflictError,
    CorruptDataError,
    MissingObjectError,
    ModelNotFoundError,
    ObjectExistsError,
    RepositoryNotFoundError,
    UnsupportedFormatError,
    VersionNotFoundError,
)
from textnlp_fast.objectstore import ObjectMeta, ObjectStore
from textnlp_fast.objectstore.backend import Version
from textnlp_fast.storage.config import DEFAULT_WINDOW_BYTES
from textnlp_fast.storage.manifest import FORMATS, Manifest, serialize_manifest
from textnlp_fast.storage.manifest_reading import parse_manifest
from textnlp_fast.storage.markers import MARKER_BYTES, is_marker, marked_files, new_marker
from textnlp_fast.storage.names import (
    BUILD_KEY,
    STAGE_PREFIX,
    ModelReference,
    check_name,
    check_version,
    is_version,
    latest_of,
    manifest_key,
    now_utc,
    parse_reference,
    precedence,
    split_build,
)
from textnlp_fast.storage.registry.references import read_references, read_versioned
from textnlp_fast.telemetry import count

__all__ = [
    "ModelReference",
    "RepositoryInfo",
    "VersionManager",
    "check_name",
    "check_version",
    "latest_of",
    "manifest_key",
    "now_utc",
    "parse_reference",
]

REPOSITORY_KEY: Final = "repository.json"
_REPOSITORY_LIMIT_BYTES: Final = 1 << 16
_MANIFEST_KEY = re.compile(r"models/(?P<name>.+)/versions/(?P<version>[^/]+)\.json", re.ASCII)


@dataclass(frozen=True, slots=True)
class RepositoryInfo:
    """What `repository.json` says: decided when the repository is made and the same for all its versions."""

    id: str
    window_bytes: int


class VersionManager:
    """Reads and publishes manifests. Thread-safe.

    Manifests hardly ever change, so each is read once; those of remote repositories are also kept below the
    user's cache directory, where the digest in each of them guards against a cache that rotted.
    `new_window_bytes` are the windows of a repository that has yet to be made.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.new_window_bytes = DEFAULT_WINDOW_BYTES
        self._store = store
        self._info: RepositoryInfo | None = None
        self._manifests: dict[tuple[str, str], Manifest] = {}
        self._lock = threading.Lock()
        remote = not store.url.startswith(("file:", "memory:", "/"))
        self._cache_root = _cache_directory() if remote else None

    @property
    def store(self) -> ObjectStore:
        """Where the manifests are."""
        return self._store

    # --- the repository -----------------------------------------------------------------------------------

    def info(self, *, create: bool = False) -> RepositoryInfo:
        """What `repository.json` says.

        Makes the repository if `create`, else raises RepositoryNotFoundError.
        """
        if self._info is None:
            try:
                data = self._store.get(REPOSITORY_KEY, limit_bytes=_REPOSITORY_LIMIT_BYTES)
            except MissingObjectError:
                if not create:
                    raise RepositoryNotFoundError(f"there is no repository at {self._store.url}") from None
                data = self._create()
            self._info = _parse_info(data)
        return self._info

    def _create(self) -> bytes:
        identity = secrets.token_hex(16)
        if not self._store.url.startswith("file:"):
            # Once in a bucket's life: a store that ignores conditions would let two writers publish one version.
            self._store.check_conditional_writes(f"pushes/probe-{identity}")
        data = seal_document(
            {
                "created_at": now_utc(),
                "format": FORMATS[0],
                "id": identity,
                "window_bytes": self.new_window_bytes,
                "write_id": identity,
            }
        )
        try:
            self._store.create(REPOSITORY_KEY, data)
        except ObjectExistsError:
            return self._store.get(REPOSITORY_KEY, limit_bytes=_REPOSITORY_LIMIT_BYTES)
        return data

    # --- names --------------------------------------------------------------------------------------------

    def manifest_keys(self) -> Iterator[tuple[ObjectMeta, str, str]]:
        """What the store says of every manifest, and its model and version."""
        for meta in self._store.list("models"):
            match = _MANIFEST_KEY.fullmatch(meta.key)
            if match is not None and is_version(match["version"]) and meta.size != MARKER_BYTES:
                yield meta, match["name"], match["version"]

    def models(self) -> dict[str, list[str]]:
        """Every model with its versions, oldest first."""
        found: dict[str, list[str]] = {}
        for _, name, version in self.manifest_keys():
            found.setdefault(name, []).append(version)
        return {name: sorted(found[name], key=precedence) for name in sorted(found)}

    def versions(self, name: str) -> list[str]:
        """Versions of a model in the order of semantic versioning. Raises ModelNotFoundError."""
        prefix = f"models/{check_name(name)}/versions"
        names = (
            meta.key.removeprefix(prefix + "/").removesuffix(".json")
            for meta in self._store.list(prefix)
            if meta.size != MARKER_BYTES
        )
        versions = sorted(filter(is_version, names), key=precedence)
        if not versions:
            known = ", ".join(list(self.models())[:10])
            raise ModelNotFoundError(
                f"there is no model {name!r} in {self._store.url}",
                hint=f"It has: {known}." if known else "It holds no model yet; push one first.",
            )
        return versions

    def resolve(self, reference: ModelReference) -> tuple[str, str]:
        """Name and version that a reference means: the latest where it names none, what an alias or a stage says.

        Of several versions in one stage the highest is meant; build metadata must be that of the version. Raises
        ModelNotFoundError and VersionNotFoundError.
        """
        name, selector = reference.name, reference.version
        if selector is None:
            return name, latest_of(self.versions(name))
        if reference.is_exact:
            return name, self._of_build(name, *split_build(selector))
        if selector.startswith(STAGE_PREFIX):
            return name, self._in_stage(name, selector.removeprefix(STAGE_PREFIX))
        aliases = read_versioned(self._store, name)[0].aliases
        if selector not in aliases:
            self.versions(name)
            known = ", ".join(sorted(aliases)[:10])
            raise VersionNotFoundError(
                f"{name} has no alias {selector!r}",
                hint=f"It has: {known}." if known else "It has no alias; versions are like 1.0.0.",
            )
        return name, aliases[selector].version

    def _in_stage(self, name: str, stage: str) -> str:
        references = read_references(self._store, name)
        versions = self.versions(name)
        found = [version for version in versions if references.stage_of(version) == stage]
        if not found:
            known = ", ".join(sorted({references.stage_of(version) for version in versions}))
            raise VersionNotFoundError(
                f"no version of {name} is in stage {stage!r}", hint=f"Its versions are in: {known}."
            )
        return found[-1]

    def _of_build(self, name: str, version: str, build: str) -> str:
        if build and self.manifest(name, version).metadata.get(BUILD_KEY, "") != build:
            raise VersionNotFoundError(
                f"{name} has {version}, but not of build {build!r}",
                hint=f"Leave out +{build} to take what there is.",
            )
        return version

    def parents_for(self, name: str, version: str) -> list[str]:
        """The versions below `version`, the highest first: a push is coded against the first it can read."""
        try:
            versions = self.versions(name)
        except ModelNotFoundError:
            return []
        return versions[: bisect_left(versions, precedence(version), key=precedence)][::-1]

    # --- manifests ----------------------------------------------------------------------------------------

    def find(self, name: str, version: str) -> Manifest | None:
        """The manifest of a version, None if there is none."""
        with self._lock:
            cached = self._manifests.get((name, version))
        if cached is not None:
            count(cache_hits=1)
            return cached
        try:
            manifest = self._read(name, version)
        except MissingObjectError:
            return None
        with self._lock:
            self._manifests[name, version] = manifest
        return manifest

    def manifest(self, name: str, version: str) -> Manifest:
        """The manifest of a version. Raises ModelNotFoundError or VersionNotFoundError."""
        found = self.find(name, version)
        if found is None:
            raise self._unknown(name, version)
        return found

    def require(self, name: str, version: str) -> None:
        """Raises ModelNotFoundError or VersionNotFoundError unless the version is there."""
        if version not in self.versions(name):
            raise self._unknown(name, version)

    def _unknown(self, name: str, version: str) -> VersionNotFoundError:
        versions = ", ".join(self.versions(name)[-10:])
        return VersionNotFoundError(f"{name} has no version {version}", hint=f"It has: {versions}.")

    def load_fresh(self, name: str, version: str) -> Manifest:
        """The manifest as the repository has it now, past every cache. Raises MissingObjectError if there is none."""
        return self._parse(
            name, version, self._store.get(manifest_key(name, version), limit_bytes=MAX_DOCUMENT_BYTES)
        )

    def every_manifest(self) -> Iterator[tuple[str, str]]:
        """Names and versions of all manifests."""
        for name, versions in self.models().items():
            for version in versions:
                yield name, version

    def state(self, name: str, version: str) -> tuple[Manifest | None, Version | None]:
        """What stands under a version's key now, past every cache, for a conditional write that follows.

        The manifest is None where there is no such version, the state None where there never was one.
        """
        try:
            data, state = self._store.get_versioned(
                manifest_key(name, version), limit_bytes=MAX_DOCUMENT_BYTES
            )
        except MissingObjectError:
            return None, None
        return (None if is_marker(data) else self._parse(name, version, data)), state

    def publish(self, manifest: Manifest, state: Version | None = None, data: bytes | None = None) -> None:
        """Writes the manifest where the version's key is in `state` (None: free): the version exists.

        Raises ObjectExistsError if a version is there, ConflictError if the key has changed otherwise. Whoever
        publishes beside collections goes through `publication`. `data` is the serialized manifest, where the caller
        has it already.
        """
        key = manifest_key(manifest.model, manifest.version)
        try:
            self._store.compare_and_swap(key, data or serialize_manifest(manifest), state)
        except ConflictError as error:
            found = error.existing if isinstance(error, ObjectExistsError) else b""
            if not isinstance(error, ObjectExistsError):
                with suppress(MissingObjectError):
                    found = self._store.get(key, limit_bytes=MAX_DOCUMENT_BYTES)
            if is_marker(found) or not found:
                raise ConflictError(f"{manifest.model}@{manifest.version} was deleted meanwhile") from error
            exists = ObjectExistsError(str(error.args[0]))
            exists.existing = found
            raise exists from error
        with self._lock:
            self._manifests[manifest.model, manifest.version] = manifest

    def deleted_files(self, name: str, version: str) -> str | None:
        """The digest of the files that a deleted version had; None if there is a version, or never was one."""
        try:
            data = self._store.get(manifest_key(name, version), limit_bytes=MAX_DOCUMENT_BYTES)
        except MissingObjectError:
            return None
        return marked_files(data)

    def retire(self, name: str, version: str, state: Version | None, files: str | None) -> None:
        """Puts a marker under the version's key: the version is gone. Raises ConflictError unless it is in `state`.

        `files` is the digest of the files that it had, None if there never was one.
        """
        self._store.compare_and_swap(manifest_key(name, version), new_marker(now_utc(), files), state)
        self.forget(name, version)

    def forget(self, name: str, version: str) -> None:
        """Drops what is remembered of a version."""
        with self._lock:
            self._manifests.pop((name, version), None)

    def load_listed(self, meta: ObjectMeta, name: str, version: str) -> Manifest:
        """The manifest that a listing has just shown, from the cache on disk if that has it.

        Raises MissingObjectError if it was deleted since.
        """
        return self._read(name, version, meta.etag)

    def _read(self, name: str, version: str, etag: str | None = None) -> Manifest:
        key = manifest_key(name, version)
        if self._cache_root is None:
            return self.load_fresh(name, version)
        etag = re.sub(r"[^A-Za-z0-9]", "", etag or self._store.head(key).etag)[:64]
        path = self._cache_root / self.info().id / name / f"{version}-{etag}.json"
        with suppress(OSError, CorruptDataError, UnsupportedFormatError):
            kept = self._parse(name, version, path.read_bytes())
            count(cache_hits=1)
            return kept
        count(cache_misses=1)
        data = self._store.get(key, limit_bytes=MAX_DOCUMENT_BYTES)
        manifest = self._parse(name, version, data)
        with suppress(OSError):  # the cache only saves time
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{secrets.token_hex(8)}")
            temporary.write_bytes(data)
            temporary.replace(path)
        return manifest

    def _parse(self, name: str, version: str, data: bytes) -> Manifest:
        what = f"the manifest of {name}@{version}"
        if is_marker(data):
            raise MissingObjectError(f"there is no version {version} of {name} any more")
        manifest = parse_manifest(data, what)
        if (manifest.model, manifest.version) != (name, version):
            raise CorruptDataError(
                f"{what} is that of {manifest.model}@{manifest.version}, stored in its place"
            )
        if manifest.window_bytes != self.info().window_bytes:
            raise CorruptDataError(f"{what} has windows of another size than its repository")
        return manifest


def _parse_info(data: bytes) -> RepositoryInfo:
    document = parse_document(data, REPOSITORY_KEY)
    identity, window = document.get("id"), document.get("window_bytes")
    if not isinstance(identity, str) or not re.fullmatch(r"[0-9a-f]{32}", identity):
        raise CorruptDataError(f"{REPOSITORY_KEY} carries no id")
    if type(window) is not int or not MIN_WINDOW_BYTES <= window <= MAX_WINDOW_BYTES:
        raise CorruptDataError(f"{REPOSITORY_KEY} carries no usable window_bytes")
    return RepositoryInfo(identity, window)


def _cache_directory() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(root) / "textnlp-fast"
