"""Ranks killed in the middle of a save: the version is there whole or not at all, and a second try succeeds."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from integrations.dcp.forking import Launcher
from textnlp_fast.storage import Repository
from textnlp_fast.storage.garbage.collecting import CollectionOptions

RANKS = 4
SEEDS = 12
COLLECTION = CollectionOptions(delete=True, grace_s=0, push_grace_s=0)


@pytest.fixture(scope="module")
def first(ranks: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with step 1."""
    root = tmp_path_factory.mktemp("first") / "repository"
    ranks.run("save_steps", RANKS, url=str(root), steps=[1])
    return root


@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_in_the_middle(ranks: Launcher, first: Path, tmp_path: Path, seed: int) -> None:
    root = tmp_path / "repository"
    shutil.copytree(first, root)
    chance = random.Random(seed)
    # Two seeds of three take the coordinator, which writes more: objects, an intent, a record, the manifest, and
    # removes the intent. Other ranks write where they send little to it, or nothing.
    victim = 0 if seed % 3 else chance.randrange(1, RANKS)
    carried_bytes = 1 << 20 if victim == 0 and seed % 4 < 2 else 0
    after = 1 + (seed // 2) % (5 if carried_bytes else 6) if victim == 0 else 1
    answers = ranks.attempt(
        "killed",
        RANKS,
        url=str(root),
        victim=victim,
        after=after,
        early=bool(chance.randrange(2)),
        carried_bytes=carried_bytes,
    )
    assert answers[victim].get("signal") == 9

    repository = Repository.open(root)
    assert repository.versions("net") in (["0.0.1"], ["0.0.1", "0.0.2"])
    assert repository.verify(deep=True).ok
    if seed % 2:  # what the save left is collected, and its names are never used again
        repository.collect_garbage(COLLECTION)
        assert repository.collect_garbage(COLLECTION).unused_objects == 0
    ranks.run("save_steps", RANKS, url=str(root), steps=[2])
    again = Repository.open(root)
    assert again.versions("net") == ["0.0.1", "0.0.2"]
    again.collect_garbage(COLLECTION)
    assert again.verify(deep=True).ok
    assert ranks.run("load_steps", 2, url=str(root), steps=[1, 2]) == [[], []]


@pytest.mark.parametrize("unable", [0, RANKS - 1])
def test_a_rank_that_cannot_write_fails_the_save(
    ranks: Launcher, first: Path, tmp_path: Path, unable: int
) -> None:
    root = tmp_path / "repository"
    shutil.copytree(first, root)
    for answer in ranks.run("failing", RANKS, url=str(root), unable=unable):
        assert answer["failed"]
        assert answer["there"] == ["0.0.1"]
        assert answer["intents"] == 0, "its manifest cannot come any more"
    assert ranks.run("load_step", 1, url=str(root), step=2) == [[]]
