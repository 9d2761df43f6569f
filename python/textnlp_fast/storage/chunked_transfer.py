"""Files of any kind to and from a bucket, in parts: the asynchronous face of `textnlp_fast.objectstore.transfers`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import threading
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from textnlp_fast.errors import InvalidInputError, TransferCancelledError
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.objectstore.keys import check_key
from textnlp_fast.objectstore.transfers import (
    DownloadReport,
    TransferProgress,
    TransferSettings,
    UploadReport,
    download,
    upload,
)
from textnlp_fast.storage.repository import Repository
from textnlp_fast.telemetry import operation

__all__ = ["ChunkedTransferManager", "StorageBackend"]

StorageBackend = ObjectStore | Repository | str | os.PathLike[str]
"""A store, a repository, or the URL of either."""

Report = TypeVar("Report")
ProgressCallback = Callable[[TransferProgress], object]

# What a repository keeps under names of its own; a file of that name would be taken for one of its documents.
_OF_A_REPOSITORY: Final = re.compile(r"repository\.json|objects/.*|models/[^/]+/.*|audit/.*|leases/.*")


class ChunkedTransferManager:
    """Moves files in parts: many at once, each checked, resumed by calling again after a kill.

    `settings` say how (`textnlp_fast.objectstore.transfers.TransferSettings`).
    """

    def __init__(self, settings: TransferSettings | None = None) -> None:
        self._settings = settings or TransferSettings()

    async def upload_file_chunked(
        self,
        *,
        local_path: str | os.PathLike[str],
        remote_path: str,
        storage_backend: StorageBackend,
        progress_callback: ProgressCallback | None = None,
        digest: str | None = None,
    ) -> UploadReport:
        """Makes the object `remote_path` of the backend out of a file.

        `digest`: what the caller knows of the file (BLAKE3); then sending begins at once, and a file with another
        makes no object.

        `progress_callback` gets a `TransferProgress` several times a second, on the loop that awaits this; it may be a
        coroutine function. Cancelling the task stops the transfer, and what was moved is kept, or not, as
        `settings.on_cancel` says. A callback that raises stops it in the same way, and its error is raised
        here. Errors as in `textnlp_fast.objectstore.transfers.upload_file`; a name that a repository keeps for itself
        raises InvalidInputError.
        """

        def work(settings: TransferSettings) -> UploadReport:
            store = _store(storage_backend, remote_path)
            with operation("upload", repository=store.url) as op:
                report = upload(local_path, store, remote_path, settings, digest=digest)
                op.count(bytes_written=report.moved_bytes, retries=report.retries)
                return report

        return await self._run(work, progress_callback)

    async def download_file_chunked(
        self,
        *,
        remote_path: str,
        local_path: str | os.PathLike[str],
        storage_backend: StorageBackend,
        progress_callback: ProgressCallback | None = None,
    ) -> DownloadReport:
        """Makes `local_path` a file with the object's bytes, every one of them checked where the object has a digest.

        Callback and cancellation as in `upload_file_chunked`; errors as in
        `textnlp_fast.objectstore.transfers.download_file`.
        """

        def work(settings: TransferSettings) -> DownloadReport:
            store = _store(storage_backend, None)
            with operation("download", repository=store.url) as op:
                report = download(store, remote_path, local_path, settings)
                op.count(bytes_read=report.moved_bytes, retries=report.retries)
                return report

        return await self._run(work, progress_callback)

    async def _run(
        self, work: Callable[[TransferSettings], Report], progress_callback: ProgressCallback | None
    ) -> Report:
        """Runs a transfer on a thread; a cancelled task waits until it has stopped."""
        cancel = _Either(self._settings.cancel)
        loop = asyncio.get_running_loop()
        waiting: set[asyncio.Future[object]] = set()
        failures: list[BaseException] = []

        def fail(error: BaseException) -> None:
            failures.append(error)
            cancel.set()

        def done(future: asyncio.Future[object]) -> None:
            waiting.discard(future)
            if not future.cancelled() and (error := future.exception()) is not None:
                fail(error)

        def call(progress: TransferProgress) -> None:
            if failures:
                return
            try:
                answer = progress_callback(progress) if progress_callback is not None else None
            except Exception as error:  # noqa: BLE001  the loop would only print it: whoever awaits gets it
                fail(error)
                return
            if isinstance(answer, Awaitable):
                future = asyncio.ensure_future(answer)
                waiting.add(future)
                future.add_done_callback(done)

        def tell(progress: TransferProgress) -> None:
            if self._settings.progress is not None:
                self._settings.progress(progress)
            if progress_callback is not None:
                loop.call_soon_threadsafe(call, progress)

        settings = dataclasses.replace(self._settings, cancel=cancel, progress=tell)
        running = asyncio.ensure_future(asyncio.to_thread(work, settings))
        try:
            report = await asyncio.shield(running)
        except asyncio.CancelledError:
            cancel.set()
            # It ends at its next piece, with its own error: that it was cancelled.
            with contextlib.suppress(Exception):
                await running
            raise
        except TransferCancelledError:
            if failures:
                raise failures[0] from None
            raise
        if waiting:
            await asyncio.gather(*waiting)
        if failures:
            raise failures[0]
        return report


class _Either(threading.Event):
    """Set by itself, or by the event of the caller's."""

    def __init__(self, other: threading.Event | None) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or (self._other is not None and self._other.is_set())


def _store(backend: StorageBackend, written: str | None) -> ObjectStore:
    if isinstance(backend, ObjectStore):
        return backend
    if isinstance(backend, Repository):
        if written is not None and _OF_A_REPOSITORY.fullmatch(written):
            raise InvalidInputError(
                f"{written!r} is a name that the repository keeps for itself",
                hint="Choose another, such as files/model.bin; versions of models are published by push.",
            )
        if written is not None:
            check_key(written)  # others may have any name; what lies in a repository goes to any store
        return backend.store
    return open_store(backend)
