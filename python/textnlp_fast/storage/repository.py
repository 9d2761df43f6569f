"""A repository of models: push, pull, log, diff and verify over one object store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from textnlp_fast.contents.windows import DATA_ERRORS, DataError, ProgressCallback
from textnlp_fast.errors import MissingObjectError, RepositoryNotFoundError
from textnlp_fast.objectstore import ObjectStore, ServerSideEncryption, local_folder, open_store
from textnlp_fast.storage.audit.recording import record_read
from textnlp_fast.storage.compare import DiffRow, diff_versions
from textnlp_fast.storage.config import StorageConfig, TransferOptions
from textnlp_fast.storage.dry_run import forecast_push
from textnlp_fast.storage.explain import Explanation
from textnlp_fast.storage.explain_versions import explain_versions
from textnlp_fast.storage.features import Forecast
from textnlp_fast.storage.garbage.collecting import CollectionOptions, GarbageReport, collect_garbage
from textnlp_fast.storage.headers import read_dtypes, read_tensors
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.names import BUILD_KEY, check_selector, split_build
from textnlp_fast.storage.nearby import nearby
from textnlp_fast.storage.pull import PullReport, pull_model
from textnlp_fast.storage.push import PushReport, PushRequest, push_model
from textnlp_fast.storage.signing import PrivateKey, SignaturePolicy, Signed, require_signatures, sign_version
from textnlp_fast.storage.stored_files import StoredFiles
from textnlp_fast.storage.stored_tensors import StoredTensors
from textnlp_fast.storage.verify import VerifyReport, verify_repository
from textnlp_fast.storage.version_manager import (
    ModelReference,
    VersionManager,
    check_name,
    parse_reference,
)
from textnlp_fast.telemetry import operation
from textnlp_fast.tensors import TensorInfo

__all__ = ["LogRow", "Repository"]

_PULL_TRIES = 4


@dataclass(frozen=True, slots=True)
class LogRow:
    """One version in a model's history. Sizes in bytes; `stored_bytes` is what it added to the repository."""

    version: str
    parent: str | None
    created_at: str
    message: str
    files: int
    tensors: int
    raw_bytes: int
    stored_bytes: int

    @property
    def ratio(self) -> float | None:
        """Raw bytes per stored byte; None if the version added nothing."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else None


class Repository:
    """Versions of models in a bucket or folder. Thread-safe; every call may run beside any other.

    `options` say how versions are coded and how much memory and how many threads may be used. `signatures` say what
    must be signed to be pulled, loaded or swapped in; None: what the settings say then.
    """

    def __init__(
        self,
        store: ObjectStore,
        options: TransferOptions | None = None,
        *,
        versions: VersionManager | None = None,
        signatures: SignaturePolicy | None = None,
    ) -> None:
        self._signatures = signatures
        self._store = store
        self._options = options or TransferOptions()
        self._versions = versions or VersionManager(store)

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str],
        *,
        create: bool | Literal["at push"] = False,
        options: TransferOptions | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        allow_http: bool = False,
        encryption: ServerSideEncryption | None = None,
        window_bytes: int | None = None,
        signatures: SignaturePolicy | None = None,
    ) -> Repository:
        """Opens the repository at a path or URL (`s3://bucket/prefix`, `gs://`, `az://`, `memory://name`).

        Makes it if `create`, with windows of `window_bytes`; "at push" leaves that to the first push, which
        makes it once it knows that its files can be read. Else raises RepositoryNotFoundError if there is
        none.
        """
        place = local_folder(os.fspath(url))
        if place is not None and not create and not place.is_dir():
            raise RepositoryNotFoundError(
                f"there is no repository at {place}"
            )  # opening would make the folder
        store = open_store(
            url, region=region, endpoint_url=endpoint_url, allow_http=allow_http, encryption=encryption
        )
        repository = cls(
            nearby(store),
            options,
            signatures=signatures,
        )
        if window_bytes is not None:
            repository._versions.new_window_bytes = window_bytes
        if create != "at push":
            repository._versions.info(create=create)
        return repository

    @classmethod
    def from_config(cls, config: StorageConfig, *, create: bool | Literal["at push"] = False) -> Repository:
        """Opens the repository that a configuration names; `create` as in `open`."""
        return cls.open(
            config.url,
            create=create,
            options=config.transfer,
            region=config.region,
            endpoint_url=config.endpoint_url,
            allow_http=config.allow_http,
            encryption=config.encryption,
        )

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def id(self) -> str:
        """What tells it from every other one, wherever it is copied to: 32 hex digits."""
        return self._versions.info().id

    @property
    def store(self) -> ObjectStore:
        """Where its objects are."""
        return self._store

    @property
    def options(self) -> TransferOptions:
        return self._options

    def push(
        self,
        model_path: str | os.PathLike[str],
        name: str,
        version: str,
        *,
        parent: tuple[str, str] | str | None = "auto",
        base_path: str | os.PathLike[str] | None = None,
        message: str = "",
        metadata: Mapping[str, str] | None = None,
        sign_key: PrivateKey | None = None,
        progress: ProgressCallback | None = None,
    ) -> PushReport:
        """Publishes a safetensors file or a Hugging Face directory as a version.

        `parent` is the version to code against: "auto" (the highest one below), a version of the same
        model, `NAME@VERSION` or a (model, version) pair, or None. `base_path` are the parent's files, if
        they are at hand: they need not be read from the repository then. Pushing the same files again
        succeeds and changes nothing. With `sign_key` the version is signed before it appears.

        Raises InvalidInputError and its kinds for what cannot be pushed, VersionExistsError if the version
        holds other files, StorageUnavailableError and OutOfSpaceError; whatever it raises, nothing was
        published, unless the hint of a StorageUnavailableError says that the last answer was lost.
        """
        version, build = split_build(version)
        if build:
            metadata = {**(metadata or {}), BUILD_KEY: build}
        request = PushRequest(
            path=model_path,
            name=name,
            version=version,
            parent=self._parent(name, parent),
            base_path=base_path,
            message=message,
            metadata=metadata or {},
            sign_key=sign_key,
        )
        with operation("push", model=name, version=version, repository=self.url) as op:
            report = push_model(self._store, self._versions, request, self._options, progress)
            op.count(
                bytes_saved=max(0, report.raw_bytes - report.uploaded_bytes),
                versions=0 if report.already_there else 1,
            )
            op.stores(report.stored_bytes)
            if sign_key is not None and report.already_there:
                self.sign(name, version, sign_key, files=model_path)
        return report

    def sign(
        self, name: str, version: str, key: PrivateKey, *, files: str | os.PathLike[str] | None = None
    ) -> Signed:
        """Signs a version that is there; more under `storage.signing.sign_version`."""
        with operation("sign", model=name, version=version, repository=self.url):
            return sign_version(self._store, self.manifest(name, version), key, self._options, files=files)

    def plan_push(
        self,
        model_path: str | os.PathLike[str],
        name: str,
        version: str,
        *,
        parent: tuple[str, str] | str | None = "auto",
        base_path: str | os.PathLike[str] | None = None,
        progress: ProgressCallback | None = None,
    ) -> Forecast:
        """What `push` would do with these files, at which cost and why. Nothing is written, not even a repository."""
        version, _ = split_build(version)
        parent = self._parent(name, parent)
        request = PushRequest(path=model_path, name=name, version=version, parent=parent, base_path=base_path)
        return forecast_push(self._store, self._versions, request, self._options, progress)

    def pull(
        self,
        name: str,
        version: str | None,
        dest: str | os.PathLike[str],
        *,
        have: Sequence[str | os.PathLike[str]] = (),
        signatures: SignaturePolicy | None = None,
        progress: ProgressCallback | None = None,
    ) -> PullReport:
        """Makes `dest` a directory with the version's files (None: the latest), each byte verified.

        Reads only what neither `dest` nor the models at `have` hold. `signatures` as in `Repository`. Raises
        ModelNotFoundError, VersionNotFoundError, SignatureRequiredError, CorruptDataError and its kinds,
        OutOfSpaceError, StorageUnavailableError; then `dest` is as it was.
        """
        with operation("pull", model=name, version=version, repository=self.url) as op:
            manifest = self.trusted_manifest(name, version, signatures=signatures)
            for left in reversed(range(_PULL_TRIES)):
                try:
                    report = pull_model(
                        self._store, manifest, dest, self._options, have=have, progress=progress
                    )
                    break
                except MissingObjectError:
                    # Was it collected, and the version stored anew? One that was deleted raises that.
                    self._versions.forget(manifest.model, manifest.version)
                    fresh = self.trusted_manifest(name, version, signatures=signatures)
                    if fresh.write_id == manifest.write_id or not left:
                        raise
                    manifest = fresh
            op.count(bytes_saved=max(0, report.raw_bytes - report.fetched_bytes))
            record_read(self._store, "pull", manifest.model, manifest.version)
        return report

    def resolve(self, reference: ModelReference) -> tuple[str, str]:
        """Name and version that a reference means, by an alias or a stage too; raises what is not found."""
        return self._versions.resolve(reference)

    def versions(self, name: str) -> list[str]:
        """Versions of a model in the order of semantic versioning. Raises ModelNotFoundError."""
        return self._versions.versions(name)

    def models(self) -> dict[str, list[str]]:
        """Names of all models with their versions, in the order of semantic versioning."""
        return self._versions.models()

    def manifest(self, name: str, version: str | None = None) -> Manifest:
        """The manifest of a version, or of what an alias or `stage:NAME` means; of the latest if None."""
        selector = None if version is None else check_selector(version)
        return self._versions.manifest(*self.resolve(ModelReference(check_name(name), selector)))

    def trusted_manifest(
        self, name: str, version: str | None = None, *, signatures: SignaturePolicy | None = None
    ) -> Manifest:
        """The manifest of a version that has the signatures it needs. Raises SignatureRequiredError."""
        manifest = self.manifest(name, version)
        policy = signatures or self._signatures or SignaturePolicy.current()
        require_signatures(self._store, manifest, policy)
        return manifest

    def dtypes(self, manifest: Manifest) -> dict[str, dict[str, str]]:
        """The dtypes of a version's tensors as its files' headers give them, by file path and tensor name."""
        return read_dtypes(self._store, manifest, self._options)

    def tensors(self, name: str, version: str | None = None) -> StoredTensors:
        """The tensors of a version (None: the latest), to be read one by one; raises what `manifest` does."""
        return StoredTensors(self._store, self.trusted_manifest(name, version), self._options)

    def files(self, name: str, version: str | None = None, *, check_parts: bool = False) -> StoredFiles:
        """The files of a version (None: the latest), to be read by ranges; raises what `trusted_manifest` does."""
        return StoredFiles(self.tensors(name, version), check_parts=check_parts)

    def headers(self, manifest: Manifest) -> dict[str, dict[str, TensorInfo]]:
        """What a version's files say of their tensors, by file path and tensor name."""
        return read_tensors(self._store, manifest, self._options)

    def log(self, name: str, *, problems: dict[str, DataError] | None = None) -> list[LogRow]:
        """The versions of a model, in the order of semantic versioning.

        A version whose manifest cannot be read is left out and noted in `problems`; without `problems` its
        error is raised.
        """
        rows: list[LogRow] = []
        for version in self._versions.versions(name):
            try:
                rows.append(_log_row(self._versions.manifest(name, version)))
            except DATA_ERRORS as error:
                if problems is None:
                    raise
                problems[version] = error
        return rows

    def diff(
        self, name: str, old: str, new: str, *, progress: ProgressCallback | None = None
    ) -> list[DiffRow]:
        """What changed between two versions, tensor by tensor.

        Either may be `NAME@VERSION` of another model.
        """
        with operation("diff", model=name, version=new, repository=self.url):
            first, second = (self._versions.manifest(*self._across(name, each)) for each in (old, new))
            return diff_versions(self._store, first, second, self._options, progress)

    def explain(
        self,
        name: str,
        old: str,
        new: str,
        *,
        with_rank: bool = True,
        progress: ProgressCallback | None = None,
    ) -> Explanation:
        """What changed between two versions in depth: norms, ULPs, effective ranks, stored bytes.

        Versions as in `diff`; effective ranks take most of the time. `storage.explain` turns the answer into lines.
        """
        with operation("explain", model=name, version=new, repository=self.url):
            first, second = (self._versions.manifest(*self._across(name, each)) for each in (old, new))
            return explain_versions(
                self._store, first, second, self._options, with_rank=with_rank, progress=progress
            )

    def verify(
        self,
        name: str | None = None,
        version: str | None = None,
        *,
        deep: bool = True,
        progress: ProgressCallback | None = None,
    ) -> VerifyReport:
        """Checks a version, a model or everything; `deep` reads every byte and decodes every tensor."""
        if name is not None and version is not None:
            version = self._across(name, version)[1]
        with operation("verify", model=name, version=version, repository=self.url):
            report = verify_repository(
                self._store.at_origin(),
                self._versions,
                self._options,
                name=name,
                version=version,
                deep=deep,
                progress=progress,
            )
            record_read(self._store, "verify", name, version, {"deep": deep, "ok": report.ok})
        return report

    def _parent(self, name: str, parent: tuple[str, str] | str | None) -> tuple[str, str] | str | None:
        """What a push's `parent` means, its aliases and stages resolved."""
        return (
            self._across(check_name(name), parent) if isinstance(parent, str) and parent != "auto" else parent
        )

    def _across(self, name: str, version: str) -> tuple[str, str]:
        """The version of this model or, where it says so, of another one."""
        reference = parse_reference(version if "@" in version else f"{check_name(name)}@{version}")
        return self.resolve(reference)

    def collect_garbage(
        self, options: CollectionOptions | None = None, *, progress: ProgressCallback | None = None
    ) -> GarbageReport:
        """Tells which versions and objects would go; with `delete=True` in the options lets them go.

        Safe beside everything else that happens to the repository. Raises ConflictError while another collection is
        at work, CorruptDataError where a manifest cannot be read.
        """
        with operation("gc", repository=self.url):
            return collect_garbage(
                self._store, self._versions, options or CollectionOptions(), self._options, progress
            )


def _log_row(manifest: Manifest) -> LogRow:
    parent = None
    if manifest.parent is not None:
        model, version = manifest.parent
        parent = version if model == manifest.model else f"{model}@{version}"
    return LogRow(
        manifest.version,
        parent,
        manifest.created_at,
        manifest.message,
        len(manifest.files),
        sum(len(entry.names) for entry in manifest.files),
        manifest.raw_bytes,
        manifest.stored_bytes,
    )
