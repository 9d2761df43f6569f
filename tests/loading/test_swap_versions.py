"""Versions of a repository swapped into memory: what is there already is not fetched, and nothing is half done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textnlp_fast
from delta.models import Model, Tensor, nudged, weights, write
from loading.swaps import ERRORS, Trap, data_of, resident
from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    RepositoryNotFoundError,
    StorageUnavailableError,
    SwapCancelledError,
    VersionNotFoundError,
    WrongBaseError,
)
from textnlp_fast.loading import SwapReport
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.storage.object_windows import ObjectWindows

BUDGET = 64 << 20


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Windows of four kilobytes: a matrix has several."""
    options = TransferOptions(shard_bytes=1 << 16, threads=2, prices=None)
    return Repository.open(tmp_path / "repository", create=True, options=options, window_bytes=1 << 12)


def steps(count: int) -> list[Model]:
    """Versions of a model that follow each other."""
    tensors = {"q": weights(1), "k": weights(2), "norm": Tensor("F32", (3,), bytes(12))}
    models: list[Model] = [{"model.safetensors": dict(tensors), "config.json": b"{}"}]
    for n in range(1, count):
        tensors["q"] = nudged(tensors["q"], n)
        if n % 2:
            tensors["norm"] = Tensor("F32", (3,), bytes([n] * 12))
        models.append({"model.safetensors": dict(tensors), "config.json": b"{}"})
    return models


def push_all(repository: Repository, models: list[Model], tmp_path: Path) -> None:
    for n, model in enumerate(models):
        repository.push(write(model, tmp_path / f"v{n}"), "m", f"1.{n}.0")


def swap(loaded: Any, version: str, repository: Any, **options: Any) -> SwapReport:
    return textnlp_fast.swap(
        loaded, version, repository=repository, **{"memory_budget_bytes": BUDGET, "threads": 2, **options}
    )


def test_forth_and_back_over_any_distance(tmp_path: Path, repository: Repository) -> None:
    models = steps(5)
    push_all(repository, models, tmp_path)
    loaded = resident(models[0])
    places = {name: array.ctypes.data for name, array in loaded.items()}
    for target in (1, 4, 2, 0, 3):
        report = swap(loaded, f"m@1.{target}.0", repository)
        assert data_of(loaded) == data_of(resident(models[target]))
        assert report.target_version == f"1.{target}.0"
    assert {name: array.ctypes.data for name, array in loaded.items()} == places
    assert swap(loaded, "m", tmp_path / "repository").target_version == "1.4.0"
    assert data_of(loaded) == data_of(resident(models[4]))


def test_only_what_memory_lacks_is_fetched(tmp_path: Path, repository: Repository) -> None:
    models = steps(4)
    push_all(repository, models, tmp_path)
    sizes = [repository.manifest("m", f"1.{n}.0").stored_bytes for n in range(4)]
    near, far, strange = resident(models[2]), resident(models[1]), resident(models[2])
    strange["q"][5] ^= 1
    report = swap(near, "m@1.3.0", repository)
    assert 0 < report.fetched_bytes <= sizes[3]
    assert report.changed_tensors == 2
    assert swap(far, "m@1.3.0", repository).fetched_bytes <= sizes[3] + sizes[2]
    # Weights that nobody knows are no base: the whole chain comes.
    assert swap(strange, "m@1.3.0", repository).fetched_bytes > sizes[0] / 3
    assert data_of(near) == data_of(far) == data_of(strange) == data_of(resident(models[3]))
    again = swap(near, "m@1.3.0", repository)
    assert (again.changed_tensors, again.fetched_bytes, again.undo_bytes) == (0, 0, 0)


def test_tensors_that_change_places(tmp_path: Path, repository: Repository) -> None:
    a, b, c = weights(1), weights(2), weights(3)
    models: list[Model] = [
        {"model.safetensors": {"a": a, "b": b, "c": c}},
        {"model.safetensors": {"a": b, "b": nudged(c, 1), "c": a}},
    ]
    push_all(repository, models, tmp_path)
    loaded = resident(models[0])
    swap(loaded, "m@1.1.0", repository)
    assert data_of(loaded) == data_of(resident(models[1]))


def test_a_part_of_the_model(tmp_path: Path, repository: Repository) -> None:
    models = steps(2)
    push_all(repository, models, tmp_path)
    loaded = resident(models[0])
    del loaded["norm"]
    with pytest.raises(InvalidInputError, match="'norm'"):
        swap(loaded, "m@1.1.0", repository)
    swap(loaded, "m@1.1.0", repository, partial=True)
    assert loaded["q"].tobytes() == resident(models[1])["q"].tobytes()


def test_what_memory_must_have(tmp_path: Path, repository: Repository) -> None:
    models = steps(3)
    push_all(repository, models, tmp_path)
    loaded = resident(models[1])
    with pytest.raises(WrongBaseError, match=r"m@1\.0\.0.*'norm'"):
        swap(loaded, "m@1.2.0", repository, from_version="1.0.0")
    assert data_of(loaded) == data_of(resident(models[1]))
    report = swap(loaded, "m@1.2.0", repository, from_version="1.1.0")
    assert (report.source_version, report.target_version) == ("1.1.0", "1.2.0")
    with pytest.raises(WrongBaseError) as caught:
        swap(loaded, "m@1.2.0", repository, from_version="1.1.0")
    assert caught.value.is_target


def test_shapes_that_memory_cannot_follow(tmp_path: Path, repository: Repository) -> None:
    first = weights(1)
    turned = Tensor("BF16", (128, 64), first.data)
    models: list[Model] = [
        {"model.safetensors": {"q": first}},
        {"model.safetensors": {"q": turned}},
        {"model.safetensors": {"q": first, "extra": first}},
        {"model.safetensors": {"q": weights(2, rows=65)}},
    ]
    push_all(repository, models, tmp_path)
    loaded = {"q": np.frombuffer(first.data, np.uint16).reshape(64, 128).copy()}
    with pytest.raises(InvalidInputError, match=r"\[64, 128\] in memory and BF16 \[128, 64\]"):
        swap(loaded, "m@1.1.0", repository)
    with pytest.raises(InvalidInputError, match="'extra'"):
        swap(loaded, "m@1.2.0", repository)
    with pytest.raises(InvalidInputError, match=r"\[65, 128\]"):
        swap(loaded, "m@1.3.0", repository)
    with pytest.raises(InvalidInputError, match="bytes in memory"):
        swap({"q": loaded["q"].reshape(-1).view(np.uint8)}, "m@1.3.0", repository)
    with pytest.raises(InvalidInputError, match="has no tensors 'extra'"):
        swap({"q": loaded["q"], "extra": loaded["q"].copy()}, "m@1.0.0", repository, from_version="1.2.0")
    assert loaded["q"].tobytes() == first.data


def test_wrong_calls(tmp_path: Path, repository: Repository) -> None:
    push_all(repository, steps(1), tmp_path)
    loaded = resident(steps(1)[0])

    def refused(match: str, update: Any, kind: type[Exception] = InvalidInputError, **options: Any) -> None:
        with pytest.raises(kind, match=match):
            textnlp_fast.swap(loaded, update, **options)

    refused("no patch 'm@1.0.0'", "m@1.0.0")
    refused("goes with a repository", tmp_path / "p.tnpatch", from_version="1.0.0")
    refused("named by a string", tmp_path / "p", repository=repository)
    refused("goes with a patch", "m@1.0.0", repository=repository, source=tmp_path)
    refused(r"7\.0\.0", "m@7.0.0", VersionNotFoundError, repository=repository)
    refused("no repository", "m@1.0.0", RepositoryNotFoundError, repository=tmp_path / "none")
    assert data_of(loaded) == data_of(resident(steps(1)[0]))


# --- failures ----------------------------------------------------------------------------------------------------


def test_a_damaged_object(tmp_path: Path, repository: Repository) -> None:
    models = steps(2)
    push_all(repository, models, tmp_path)
    manifest = repository.manifest("m", "1.1.0")
    content = manifest.contents[_digest(manifest, "q")]
    extent = content.extents[1]
    path = tmp_path / "repository" / "objects" / extent.object[:2] / extent.object
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[extent.offset + extent.length - 1] ^= 0x40
    path.write_bytes(data)
    loaded = resident(models[0])
    with pytest.raises(CorruptDataError, match="'q'"):
        swap(loaded, "m@1.1.0", repository)
    assert data_of(loaded) == data_of(resident(models[0]))


def _digest(manifest: Any, name: str) -> str:
    (entry,) = (entry for entry in manifest.files if entry.kind == "safetensors")
    return str(entry.parts[1 + entry.names.index(name)])


@pytest.mark.parametrize("make_error", [*ERRORS, lambda: StorageUnavailableError("the bucket is gone")])
def test_a_failure_anywhere_leaves_the_old_weights(
    tmp_path: Path, repository: Repository, make_error: Any
) -> None:
    models = steps(3)
    push_all(repository, models, tmp_path)
    before, after = data_of(resident(models[0])), data_of(resident(models[2]))
    at = 0
    while True:
        at += 1
        loaded = resident(models[0])
        with pytest.MonkeyPatch.context() as patched:
            trap = Trap(patched, at, make_error(), (ObjectWindows, "read_coded"), (ObjectWindows, "prefetch"))
            try:
                swap(loaded, "m@1.2.0", repository, undo_budget_bytes=100)
            except BaseException as error:  # noqa: BLE001  (interrupts too)
                cause: BaseException | None = error
                while cause is not None and cause is not trap.error:
                    cause = cause.__cause__
                assert cause is trap.error or isinstance(error, SwapCancelledError)
                assert data_of(loaded) == before, f"call {at}"
                continue
        assert not trap.sprung
        assert data_of(loaded) == after
        break
    assert at > 20
