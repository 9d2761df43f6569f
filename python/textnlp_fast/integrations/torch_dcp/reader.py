"""DCP's reader: the steps of `dcp.load`, on every rank."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed._shard._utils import narrow_tensor_by_index
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from textnlp_fast.errors import (
    CorruptDataError,
    InternalError,
    InvalidInputError,
    ModelNotFoundError,
    RepositoryNotFoundError,
    TextnlpFastError,
    UnsafeFileError,
    VersionNotFoundError,
)
from textnlp_fast.integrations.torch_dcp.assigning import layout_of
from textnlp_fast.integrations.torch_dcp.fetching import decoded
from textnlp_fast.integrations.torch_dcp.held import local_ranks
from textnlp_fast.integrations.torch_dcp.layout import RECORD_NAME, Layout
from textnlp_fast.integrations.torch_dcp.naming import reference_of, step_hint
from textnlp_fast.integrations.torch_dcp.opening import opened
from textnlp_fast.integrations.torch_dcp.values import decode_value
from textnlp_fast.loading.places import TORCH_NAMES
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.repository import Repository
from textnlp_fast.storage.version_manager import parse_reference
from textnlp_fast.telemetry import operation

__all__ = ["RepositoryReader"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    """A piece of a tensor: the content that it is, and what its bytes mean."""

    digest: str
    dtype: str
    sizes: tuple[int, ...]


class RepositoryReader(StorageReader):  # type: ignore[misc]  # torch is optional, and has no types then
    """Loads a version (`NAME`, `NAME@VERSION`, an alias or a stage) of `repository`, a path, a URL or a `Repository`.

    The state that is loaded into may be sharded in any way, and may have only some of the version's names. A version
    that was pushed as files can be loaded, too: its tensors are whole. Each piece that is needed is decoded whole and
    compared with its digest before anything of it is copied; memory is the repository's budget, or the largest piece.

    Plain values come out as they went in. Of pickles only those are read that hold nothing but tensors and plain
    containers, unless `allow_pickle`: then whoever wrote the version can run code here.

    Raises, as it is made and as `checkpoint_id` names another version: RepositoryNotFoundError, ModelNotFoundError,
    VersionNotFoundError, InvalidInputError, on each rank by itself. All else goes through DCP's CheckpointException,
    which all ranks raise: SignatureRequiredError, CorruptDataError and its kinds, StorageUnavailableError.
    """

    def __init__(
        self,
        repository: str | os.PathLike[str] | Repository,
        reference: str,
        *,
        allow_pickle: bool = False,
    ) -> None:
        super().__init__()
        self._given = repository
        self._repository: Repository | None = None
        self._reference = parse_reference(reference)
        self._allow_pickle = allow_pickle
        self._manifest: Manifest | None = None
        self._layout: Layout | None = None
        self._found: dict[MetadataIndex, _Found] = {}
        self._ranks = 1
        self._check()

    @property
    def version(self) -> str | None:
        """The version that was read last, exactly; None before the first."""
        return None if self._manifest is None else self._manifest.version

    # --- DCP's calls, in their order ----------------------------------------------------------------------

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Names another version of the model, or another model; a step, as the writer takes it. DCP calls it first."""
        self._manifest = self._layout = None
        if checkpoint_id is not None:
            self._reference = reference_of(checkpoint_id, self._reference.name)
            try:
                self._check()
            except VersionNotFoundError as error:
                hint = step_hint(str(checkpoint_id)) or error.hint
                raise VersionNotFoundError(str(error.args[0]), hint=hint) from None

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:  # with `kwargs` DCP would ask twice
        """What tensors and values the version has."""
        repository = self._open()
        name, version = repository.resolve(self._reference)
        self._manifest = manifest = repository.trusted_manifest(name, version)
        self._layout = layout = layout_of(repository.store, manifest, repository.options)
        self._found = {}
        state: dict[str, Any] = {name: BytesStorageMetadata() for name in (*layout.values, *layout.pickles)}
        for name, (tensor, pieces) in layout.stored(manifest).items():
            for piece in pieces:
                index = MetadataIndex(name, piece.box.offsets)
                if piece.box.volume or index not in self._found:  # empty pieces may begin where others do
                    self._found[index] = _Found(piece.digest, tensor.dtype, piece.box.sizes)
            chunks = [
                ChunkStorageMetadata(torch.Size(piece.box.offsets), torch.Size(piece.box.sizes))
                for piece in pieces
            ]
            properties = TensorProperties(dtype=_torch_dtype(tensor.dtype))
            state[name] = TensorStorageMetadata(properties, torch.Size(tensor.shape), chunks)
        return Metadata(
            state_dict_metadata=state,
            planner_data=decode_value(layout.planner),
            storage_data=None,
            storage_meta=StorageMeta(checkpoint_id=f"{manifest.model}@{manifest.version}"),
        )

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing to do: `read_metadata` has opened the version."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Nothing to add."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Nothing to add; tells how many ranks share the machine."""
        self._ranks = local_ranks(len(plans))
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Reads what this rank needs."""
        manifest, layout, repository = self._opened()
        tensors: dict[str, list[tuple[ReadItem, _Found]]] = {}
        for item in plan.items:
            if item.type == LoadItemType.BYTE_IO:
                continue
            piece = self._found[item.storage_index]
            tensors.setdefault(piece.digest, []).append((item, piece))
        with operation("load", model=manifest.model, version=manifest.version, repository=repository.url):
            for digests in _groups(manifest, tensors, repository.options.memory_budget_bytes):
                found = self._decoded(digests)
                for digest in digests:
                    for item, piece in tensors[digest]:
                        _copy(item, piece, found[digest], planner)
            for item in plan.items:
                if item.type == LoadItemType.BYTE_IO:
                    planner.load_bytes(item, self._value(item.storage_index.fqn, layout, manifest))
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it names a version."""
        try:
            reference_of(checkpoint_id, "m")
        except InvalidInputError:
            return False
        return True

    # --- parts --------------------------------------------------------------------------------------------

    def _open(self) -> Repository:
        if self._repository is None:
            self._repository = opened(self._given, create=False)
        return self._repository

    def _check(self) -> None:
        """Says what is not there before DCP asks: it would print a traceback on each rank and look for other metadata.

        Other trouble may be one rank's alone. That is left to DCP, which has all ranks raise it: one that raised by
        itself would be waited for.
        """
        try:
            repository = self._open()
            name, version = repository.resolve(self._reference)
            repository.manifest(name, version)
        except (RepositoryNotFoundError, ModelNotFoundError, VersionNotFoundError):
            raise
        except TextnlpFastError as error:
            _log.debug("left to the load: %s", error)

    def _opened(self) -> tuple[Manifest, Layout, Repository]:
        if self._manifest is None or self._layout is None or self._repository is None:
            raise InternalError("data is read of a version whose metadata was not")
        return self._manifest, self._layout, self._repository

    def _decoded(self, digests: list[str]) -> dict[str, memoryview]:
        manifest, _, repository = self._opened()
        threads = max(1, repository.options.thread_count // self._ranks)
        return decoded(repository.store, manifest, digests, repository.options, threads)

    def _value(self, name: str, layout: Layout, manifest: Manifest) -> io.BytesIO:
        """What the planner unpickles: written here, of data, unless pickles are allowed."""
        if name in layout.values:
            return _pickled(decode_value(layout.values[name]))
        digest = layout.digests(manifest).get(layout.pickles[name])
        if digest is None:
            raise CorruptDataError(f"{RECORD_NAME}: the version does not have the value {name!r}")
        data = bytes(self._decoded([digest])[digest])
        if self._allow_pickle:
            return io.BytesIO(data)
        try:
            return _pickled(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
        except Exception as error:  # (unpicklers raise anything)
            raise UnsafeFileError(
                f"the value {name!r} is a pickle that holds more than data: {str(error).partition(chr(10))[0][:200]}",
                hint="If you trust whoever wrote it with this machine, pass allow_pickle=True.",
            ) from error


def _pickled(value: object) -> io.BytesIO:
    stream = io.BytesIO()
    torch.save(value, stream)
    stream.seek(0)
    return stream


def _torch_dtype(name: str) -> Any:
    dtype = getattr(torch, TORCH_NAMES.get(name, ""), None)
    if dtype is None:
        raise InvalidInputError(f"this PyTorch has no type for safetensors' {name}")
    return dtype


def _groups(manifest: Manifest, digests: Mapping[str, Any], budget_bytes: int) -> Iterator[list[str]]:
    """The contents in the order of their objects, as many at a time as the budget has room for."""
    group: list[str] = []
    size = 0
    for digest in digests:
        more = manifest.contents[digest].size
        if group and size + more > budget_bytes:
            yield group
            group, size = [], 0
        group.append(digest)
        size += more
    if group:
        yield group


def _copy(item: ReadItem, found: _Found, data: memoryview, planner: LoadPlanner) -> None:
    """Copies what an item wants of a piece into the state."""
    dtype = _torch_dtype(found.dtype)
    flat = torch.frombuffer(data, dtype=dtype) if len(data) else torch.empty(0, dtype=dtype)
    source = narrow_tensor_by_index(flat.view(found.sizes), item.storage_offsets, item.lengths)
    target = planner.resolve_tensor(item).detach()
    if target.size() != source.size():
        raise InvalidInputError(
            f"{item.storage_index.fqn!r}: {list(target.size())} places in the state for {list(source.size())} stored"
        )
    target.copy_(source)
    planner.commit_tensor(item, target)
