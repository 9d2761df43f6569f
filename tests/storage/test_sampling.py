"""A few slices tell about how much a push will store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textnlp_fast.contents.inventory import Held, take_inventory
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.storage.planning import PushPlan, plan_push
from textnlp_fast.storage.sampling import sample_sizes

Makers = Any

MIB = 1 << 20


def weights(seed: int, elements: int) -> Any:
    values = np.random.default_rng(seed).normal(0, 0.02, elements).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


@pytest.fixture
def uneven(tmp_path: Path, makers: Makers) -> tuple[Repository, Path, Path]:
    """A published model of 18 MiB, and its successor, of which only the second half moved, the last tensor most."""
    repository = Repository.open(tmp_path / "r", create=True, window_bytes=3 * MIB)
    old = {f"t{number}": weights(number, 3 * MIB) for number in range(3)}
    makers.write(tmp_path / "old" / "model.safetensors", old)
    new = {name: array.copy() for name, array in old.items()}
    new["t0"][0] += 1
    new["t1"][3 * MIB // 2 :: 40] += 1
    new["t2"][::5] += 3
    makers.write(tmp_path / "new" / "model.safetensors", new)
    repository.push(tmp_path / "old", "m", "1.0.0")
    return repository, tmp_path / "old", tmp_path / "new"


def plan_of(repository: Repository, folder: Path) -> PushPlan:
    return plan_push(take_inventory(folder, threads=2), repository.manifest("m", "1.0.0"), [])


def test_the_estimates_are_near(uneven: tuple[Repository, Path, Path]) -> None:
    repository, _, new = uneven
    options = TransferOptions(threads=2)
    plan = plan_of(repository, new)
    sampled = sample_sizes(repository._store, plan, {}, 3 * MIB, options)
    assert sampled is not None
    assert sampled.tensor_bytes == sum(step.part.size for step in plan.steps if step.base)
    by_itself = Repository.open("memory://whole", create=True, window_bytes=3 * MIB)
    whole = by_itself.push(new, "m", "1.0.0").stored_bytes
    delta = repository.push(new, "m", "1.1.0", parent="1.0.0").stored_bytes
    assert sampled.whole_bytes == pytest.approx(whole, rel=0.05)
    assert sampled.delta_bytes == pytest.approx(delta, rel=0.5)


def test_layers_that_repeat_do_not_mislead(tmp_path: Path, makers: Makers) -> None:
    """One kind of tensor in five moves a lot, in every layer: slices must not meet the same kind each time."""
    names = [f"layers.{layer}.kind{kind}" for layer in range(24) for kind in range(5)]
    old = {name: weights(number, MIB // 8) for number, name in enumerate(names)}
    new = {name: array.copy() for name, array in old.items()}
    for name, array in new.items():
        array[:: 3 if name.endswith("kind2") else 300] += 1
    makers.write(tmp_path / "old" / "model.safetensors", old)
    makers.write(tmp_path / "new" / "model.safetensors", new)
    repository = Repository.open(tmp_path / "r", create=True)
    repository.push(tmp_path / "old", "m", "1.0.0")
    plan = plan_of(repository, tmp_path / "new")
    sampled = sample_sizes(repository._store, plan, {}, 16 * MIB, TransferOptions(threads=2))
    assert sampled is not None
    delta = repository.push(tmp_path / "new", "m", "1.1.0", parent="1.0.0").stored_bytes
    assert sampled.delta_bytes == pytest.approx(delta, rel=0.25)


def test_threads_memory_and_local_bases_change_nothing(uneven: tuple[Repository, Path, Path]) -> None:
    repository, old, new = uneven
    plan = plan_of(repository, new)
    held = {
        part.digest: Held(file.location, part.offset)
        for file in take_inventory(old, threads=1)
        for part in file.parts
    }
    found = [
        sample_sizes(repository._store, plan, place, 3 * MIB, options)
        for place in ({}, held)
        for options in (
            TransferOptions(threads=1, shard_bytes=1 << 16, memory_budget_bytes=49 * MIB),
            TransferOptions(threads=3),
        )
    ]
    assert found[0] is not None
    assert all(one == found[0] for one in found)


def test_without_bases_there_is_nothing_to_sample(uneven: tuple[Repository, Path, Path]) -> None:
    repository, _, new = uneven
    plan = plan_push(take_inventory(new, threads=2), None, [])
    assert sample_sizes(repository._store, plan, {}, 3 * MIB, TransferOptions()) is None


def test_little_is_in_memory_at_a_time(
    uneven: tuple[Repository, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by what is fetched and borrowed at once, whatever the number of slices."""
    repository, _, new = uneven
    plan = plan_of(repository, new)
    asked: list[int] = []
    ranges = repository._store.get_ranges

    def counted(key: str, offsets: Any, lengths: Any) -> Any:
        asked.append(sum(lengths))
        return ranges(key, offsets, lengths)

    monkeypatch.setattr(repository._store, "get_ranges", counted)
    sample_sizes(repository._store, plan, {}, 3 * MIB, TransferOptions(threads=1))
    assert 0 < len(asked) <= 64
    assert max(asked) <= 3 * MIB + 3 * MIB // 8 + 4096
