"""DCP's writer: the steps of `dcp.save`, on every rank."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent import futures
from dataclasses import replace
from typing import Any

from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from textnlp_fast.errors import InternalError, InvalidInputError
from textnlp_fast.integrations.torch_dcp.assigning import Assignment
from textnlp_fast.integrations.torch_dcp.held import HELD, default_budget_bytes, local_ranks
from textnlp_fast.integrations.torch_dcp.naming import version_of
from textnlp_fast.integrations.torch_dcp.opening import opened
from textnlp_fast.integrations.torch_dcp.publishing import (
    Save,
    SaveReport,
    SaveStart,
    begin_save,
    find_start,
    next_version,
)
from textnlp_fast.integrations.torch_dcp.writing import write_pieces
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.names import check_name, check_version, parse_reference, split_build
from textnlp_fast.storage.push import PushRequest
from textnlp_fast.storage.repository import Repository
from textnlp_fast.storage.version_manager import VersionManager

__all__ = ["RepositoryWriter"]


class RepositoryWriter(StorageWriter):  # type: ignore[misc]  # torch is optional, and has no types then
    """Saves states as versions of `model` in `repository`, a path, a URL or a `Repository`.

    `version` is what the next save publishes; so is `checkpoint_id` of `dcp.save`, a version or a step (7 means 0.0.7).
    With neither it is the patch version after the latest. `parent` is the version that pieces are coded against, as in
    `Repository.push`. A save of the same state under the same version succeeds and changes nothing.

    Each process keeps the bytes that it saved last, up to `base_memory_bytes` (None: half of what is free, divided
    among the ranks of the machine): they are what the next save is coded against, and need not be read then. Another
    writer of the same process finds them, too.

    Values that are no tensors are saved if they are plain data. `allow_pickle` saves others as well.

    Raises, through DCP's CheckpointException: InvalidInputError and its kinds, VersionExistsError if the version has
    other files, StorageUnavailableError. Whatever it raises, nothing was published, unless the hint says that an answer
    was lost.
    """

    def __init__(
        self,
        repository: str | os.PathLike[str] | Repository,
        model: str,
        *,
        version: str | None = None,
        parent: tuple[str, str] | str | None = "auto",
        message: str = "",
        metadata: Mapping[str, str] | None = None,
        base_memory_bytes: int | None = None,
        allow_pickle: bool = False,
    ) -> None:
        super().__init__()
        self._given = repository
        self._repository: Repository | None = None
        self._versions: VersionManager | None = None
        self._model = check_name(model)
        self._wanted = None if version is None else check_version(split_build(version)[0])
        self._parent = parent
        self._message = message
        self._metadata = dict(metadata or {})
        self._base_memory_bytes = base_memory_bytes
        self._allow_pickle = allow_pickle
        self._ranks = 1
        # Kept from save to save: to start threads takes as long as what they do. Those of a forked process are none.
        self._pool: tuple[int, futures.ThreadPoolExecutor] | None = None
        self._start: futures.Future[SaveStart] | None = None
        self._save: Save | None = None
        self._version: str | None = None
        self._last_token: str | None = None
        self._report: SaveReport | None = None

    @property
    def version(self) -> str | None:
        """The version of the last save, on every rank; None before the first."""
        return self._version

    @property
    def report(self) -> SaveReport | None:
        """What the last save did, on the coordinator; None on other ranks, and if it did not succeed."""
        return self._report

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self._given, Repository):
            raise InvalidInputError(
                "a writer that was given a Repository stays in its process",
                hint="Give RepositoryWriter the repository's URL.",
            )
        own = dict.fromkeys(("_repository", "_versions", "_pool", "_start", "_save"))
        return {**self.__dict__, **own}

    # --- DCP's calls, in their order ----------------------------------------------------------------------

    def reset(self, checkpoint_id: str | os.PathLike[str] | int | None = None) -> None:
        """Names the version of the next save."""
        if checkpoint_id is not None:
            self._wanted = version_of(checkpoint_id)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """A save begins."""
        if kwargs.get("use_collectives") is False:
            raise InvalidInputError(
                "one version is made of what all ranks write: they have to hear of each other",
                hint="Leave use_collectives at True; a single process saves with no_dist=True.",
            )
        self._save = self._report = None
        if self._repository is None:
            self._repository = opened(self._given, create=True)
            self._versions = VersionManager(self._repository.store)
        self._start = None
        if is_coordinator:  # while the ranks plan
            if self._pool is None or self._pool[0] != os.getpid():
                self._pool = os.getpid(), futures.ThreadPoolExecutor(3, "textnlp-fast-dcp")
            pool = self._pool[1]
            self._start = pool.submit(self._find_start, pool)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Nothing to add."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Looks at the repository and tells each rank what its pieces are coded against."""
        if not all(plan.usable for plan in plans):
            raise InvalidInputError(
                "a planner that sends cached plans cannot say what pieces are coded against",
                hint="Leave enable_plan_caching of DefaultSavePlanner at False.",
            )
        start, self._start = self._start, None
        if start is None:
            raise InternalError("a save is planned that did not begin")
        self._save = begin_save(start.result(), plans)
        return [
            replace(plan, storage_data=assignment)
            for plan, assignment in zip(plans, self._save.assignments, strict=True)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Codes and uploads this rank's pieces."""
        assignment = plan.storage_data
        if not isinstance(assignment, Assignment) or assignment.token == self._last_token:
            raise InvalidInputError("the planner did not hand on what the coordinator said")
        self._last_token = assignment.token
        self._version = assignment.version
        self._ranks = local_ranks(assignment.ranks)
        repository, versions = self._open()
        budget = self._base_memory_bytes
        HELD.begin(HELD.used_bytes + default_budget_bytes(self._ranks) if budget is None else budget)

        def parent() -> Manifest:
            if assignment.parent is None:
                raise InternalError("a piece has a base and the save has no parent")
            return versions.manifest(*assignment.parent)

        record = write_pieces(
            plan,
            planner,
            assignment,
            repository.store,
            parent,
            repository.options,
            threads=self._threads(repository),
            allow_pickle=self._allow_pickle,
        )
        size = sum(piece.size for piece in record.pieces)
        future: Future[list[WriteResult]] = Future()
        future.set_result([WriteResult(MetadataIndex(assignment.path), size, record)])
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Publishes the version."""
        save, self._save = self._save, None
        if save is None:
            raise InternalError("a save is finished that did not begin")
        records = [result.storage_data for rank in results for result in rank]
        self._report = save.finish(metadata.planner_data, records, self._threads(self._open()[0]))
        self._wanted = None  # a save that failed is tried again under the same version

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it names a version."""
        try:
            version_of(checkpoint_id)
        except InvalidInputError:
            return False
        return True

    # --- parts --------------------------------------------------------------------------------------------

    def _find_start(self, pool: futures.ThreadPoolExecutor) -> SaveStart:
        repository, versions = self._open()
        request = PushRequest(
            path="",
            name=self._model,
            version=self._wanted or next_version(versions, self._model),
            parent=self._parent_of(repository),
            message=self._message,
            metadata=self._metadata,
        )
        return find_start(repository.store, versions, request, repository.options, pool)

    def _open(self) -> tuple[Repository, VersionManager]:
        if self._repository is None or self._versions is None:
            raise InternalError("a save goes on that did not begin")
        return self._repository, self._versions

    def _threads(self, repository: Repository) -> int:
        return max(1, repository.options.thread_count // self._ranks)

    def _parent_of(self, repository: Repository) -> tuple[str, str] | str | None:
        parent = self._parent
        if not isinstance(parent, str) or parent == "auto":
            return parent
        return repository.resolve(parse_reference(parent if "@" in parent else f"{self._model}@{parent}"))
