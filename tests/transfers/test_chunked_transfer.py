"""The asynchronous manager, as its users call it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore import open_store
from textnlp_fast.objectstore.transfers import TransferProgress, TransferSettings
from textnlp_fast.storage import ChunkedTransferManager, Repository
from transfers.conftest import Place


async def test_the_examples_of_the_specification(
    place: Place, settings: Callable[..., TransferSettings], model: Callable[[int], Path], tmp_path: Path
) -> None:
    seen: list[TransferProgress] = []

    async def callback(progress: TransferProgress) -> None:
        await asyncio.sleep(0)
        seen.append(progress)

    backend, local = place.store, model(300_000)
    manager = ChunkedTransferManager(settings(part_bytes=100_000))
    report = await manager.upload_file_chunked(
        local_path=local,
        remote_path="models/model.bin",
        storage_backend=backend,
        progress_callback=callback,
    )
    assert seen[-1].done_bytes == report.size if seen else place.kind == "memory"
    await manager.download_file_chunked(
        remote_path="models/model.bin",
        local_path=tmp_path / "back.bin",
        storage_backend=backend,
        progress_callback=seen.append,
    )
    assert (tmp_path / "back.bin").read_bytes() == local.read_bytes()
    assert seen[-1].done_bytes == seen[-1].total_bytes == 300_000


async def test_a_repository_and_a_url_are_backends_too(model: Callable[[int], Path], tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository", create=True)
    manager = ChunkedTransferManager()
    await manager.upload_file_chunked(
        local_path=model(1000), remote_path="models/model.bin", storage_backend=repository
    )
    await manager.download_file_chunked(
        remote_path="models/model.bin",
        local_path=tmp_path / "back",
        storage_backend=str(tmp_path / "repository"),
    )
    assert (tmp_path / "back").read_bytes() == model(1000).read_bytes()
    assert repository.models() == {}
    assert repository.verify().ok


@pytest.mark.parametrize("name", ["repository.json", "objects/aa/b", "models/m/versions/1.0.0.json"])
async def test_a_repository_keeps_its_own_names(
    model: Callable[[int], Path], tmp_path: Path, name: str
) -> None:
    repository = Repository.open(tmp_path / "repository", create=True)
    with pytest.raises(InvalidInputError, match="keeps for itself"):
        await ChunkedTransferManager().upload_file_chunked(
            local_path=model(10), remote_path=name, storage_backend=repository
        )
    assert repository.verify().ok


async def test_cancelling_the_task_stops_the_transfer_and_keeps_what_was_moved(
    settings: Callable[..., TransferSettings], model: Callable[[int], Path], tmp_path: Path
) -> None:
    store = open_store(tmp_path / "store")
    content = model(3_000_000).read_bytes()
    store.put_object("m", content)
    moved = asyncio.Event()

    def look(progress: TransferProgress) -> None:
        if progress.parts_done >= 4:
            moved.set()

    slow = ChunkedTransferManager(settings(part_bytes=100_000, bandwidth_bytes_per_s=2e6, streams=2))
    task = asyncio.ensure_future(
        slow.download_file_chunked(
            remote_path="m", local_path=tmp_path / "out", storage_backend=store, progress_callback=look
        )
    )
    await moved.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert (tmp_path / "out.part.journal").exists()
    quick = ChunkedTransferManager(settings(part_bytes=100_000))
    report = await quick.download_file_chunked(
        remote_path="m", local_path=tmp_path / "out", storage_backend=store
    )
    assert report.resumed_bytes >= 400_000
    assert (tmp_path / "out").read_bytes() == content


@pytest.mark.parametrize("is_coroutine", [False, True])
async def test_a_callback_that_raises_stops_the_transfer_and_is_heard(
    settings: Callable[..., TransferSettings],
    model: Callable[[int], Path],
    tmp_path: Path,
    is_coroutine: bool,
) -> None:
    size, part = 3_000_000, 100_000
    store, local = open_store(tmp_path / "store"), model(size)
    loud: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loud.append(context))

    def callback(progress: TransferProgress) -> None:
        if progress.done_bytes > 5 * part:
            raise ZeroDivisionError("the callback's own")

    async def slow_callback(progress: TransferProgress) -> None:
        await asyncio.sleep(0)
        callback(progress)

    how = settings(part_bytes=part, streams=1, bandwidth_bytes_per_s=1e6)
    with pytest.raises(ZeroDivisionError, match="own"):
        await ChunkedTransferManager(how).upload_file_chunked(
            local_path=local,
            remote_path="m",
            storage_backend=store,
            progress_callback=slow_callback if is_coroutine else callback,
        )
    assert loud == []
    assert not store.exists("m")
    report = await ChunkedTransferManager(settings(part_bytes=part)).upload_file_chunked(
        local_path=local, remote_path="m", storage_backend=store
    )
    assert report.resumed_bytes >= 4 * part
    assert store.get("m") == local.read_bytes()


async def test_a_callback_that_raises_at_the_end_is_heard_too(
    settings: Callable[..., TransferSettings], model: Callable[[int], Path], tmp_path: Path
) -> None:
    store = open_store(tmp_path / "store")

    def callback(progress: TransferProgress) -> None:
        if progress.done_bytes == progress.total_bytes:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ChunkedTransferManager(settings()).upload_file_chunked(
            local_path=model(1000), remote_path="m", storage_backend=store, progress_callback=callback
        )
    assert store.get("m") == model(1000).read_bytes()
