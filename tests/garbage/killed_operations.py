"""Kills operations on a repository at random moments; run by test_kills.py, once, as a process of its own.

Arguments: folder, number of kills, seed. Prints a line for each kill. A child is forked for each part, so that nothing
waits for Python to start; this process itself never starts a thread.

A victim pushes, pulls, names, deletes and collects in a loop until it is killed. Before each change it notes in a
journal beside the repository what it is about to do, and after it that it is done; the checker knows from that what
must be there, what must not, and what may be either.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

from faults.children import in_child, say
from textnlp_fast.storage import CollectionOptions, Registry, Repository, TransferOptions

OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=2)
COLLECT = {"delete": True, "grace_s": 0, "push_grace_s": 0, "lease_s": 0.05}
TENSORS = 6


def open_repository(folder: Path) -> Repository:
    return Repository.open(folder / "repository", create=True, options=OPTIONS, window_bytes=1 << 14)


def write_model(path: Path, seed: int) -> None:
    """A model of 200 kB that `seed` alone decides: some tensors as in others, some moved a little, some its own."""
    steady, own = np.random.default_rng(1), np.random.default_rng(seed)
    header, body = [], b""
    for number in range(TENSORS):
        array = steady.integers(0x3C00, 0x3D00, 1 << 14, np.uint16)
        if number % 3 == 1:
            array[:: 20 + seed % 9] += 1
        elif number % 3 == 2:
            array = own.integers(0, 1 << 16, 1 << 14, np.uint16)
        end = len(body) + array.nbytes
        offsets = f"[{len(body)},{end}]"
        header.append(f'"t{number}":{{"dtype":"BF16","shape":[{len(array)}],"data_offsets":{offsets}}}')
        body += array.tobytes()
    text = ("{" + ",".join(header) + "}").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


class Journal:
    """Lines of (verb, version, seed, "begin" or "end"), each written at once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal"

    def note(self, verb: str, version: str, seed: int, moment: str) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([verb, version, seed, moment]) + "\n")

    def read(self) -> tuple[dict[str, int], set[str], dict[str, int]]:
        """Versions that must be there with the seeds of their files, those that must not, those that may be."""
        there: dict[str, int] = {}
        gone: set[str] = set()
        open_: dict[str, int] = {}
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        for line in lines:
            verb, version, seed, moment = json.loads(line)
            there.pop(version, None)
            gone.discard(version)
            open_.pop(version, None)
            if moment == "begin":
                open_[version] = seed
            elif verb == "push":
                there[version] = seed
            else:
                gone.add(version)
        return there, gone, open_


def act_forever(folder: Path, seed: int) -> None:
    choice, journal = random.Random(seed), Journal(folder)
    repository = open_repository(folder)
    while True:
        versions = repository.models().get("m", [])
        verbs = (
            ["push"] if len(versions) < 2 else ["push", "push", "pull", "collect", "delete", "rebase", "name"]
        )
        verb = choice.choice(verbs)
        if verb == "push":
            number = choice.randrange(1, 30)
            version, content = f"1.{number}.0", number * 7 % 40  # a number means the same files for ever
            if version in versions:
                continue
            write_model(folder / "in" / "m.safetensors", content)
            journal.note("push", version, content, "begin")
            repository.push(folder / "in", "m", version)
            journal.note("push", version, content, "end")
        elif verb == "pull":
            shutil.rmtree(folder / "out", ignore_errors=True)
            repository.pull("m", choice.choice(versions), folder / "out")
        elif verb == "name":
            Registry(repository).set_alias("m", "named", choice.choice(versions))
        else:
            doomed = choice.choice(versions) if verb != "collect" else None
            kept = Registry(repository).references("m").kept_versions()
            if doomed is None or doomed in kept:
                repository.collect_garbage(CollectionOptions(**COLLECT))
                continue
            there = Journal(folder).read()[0]
            journal.note("delete", doomed, there[doomed], "begin")
            options = CollectionOptions(versions=[("m", doomed)], rebase=verb == "rebase", **COLLECT)
            repository.collect_garbage(options)
            journal.note("delete", doomed, there[doomed], "end")


def check(folder: Path) -> None:
    """What has to hold after a kill, and that the next run of everything succeeds."""
    repository, journal = open_repository(folder), Journal(folder)
    there, gone, open_ = journal.read()
    versions = set(repository.models().get("m", []))
    assert there.keys() <= versions, f"lost: {there.keys() - versions}"
    assert not gone & versions, f"not gone: {gone & versions}"
    assert versions <= there.keys() | open_.keys(), f"appeared: {versions}"
    report = repository.verify()
    assert report.ok, report.problems
    left = len(report.unreferenced) + len(list((folder / "repository" / "pushes").glob("*")))
    say(f"left behind: {left}")
    for version in versions:
        look_at(repository, folder, version, (there | open_)[version])
    # What was begun is done by whoever comes next.
    for version, seed in open_.items():
        if version not in versions:
            write_model(folder / "in" / "m.safetensors", seed)
            repository.push(folder / "in", "m", version)
        journal.note("push", version, seed, "end")
    repository.collect_garbage(CollectionOptions(**COLLECT))
    again = repository.collect_garbage(CollectionOptions(**COLLECT))
    assert (again.swept, again.unused_objects, again.waiting) == (0, 0, 0)
    report = open_repository(folder).verify(deep=False)
    assert report.ok, report.problems
    assert not report.unreferenced
    assert not list((folder / "repository" / "pushes").glob("*"))
    if repository.models():
        named = Registry(repository).references("m").aliases
        assert all(alias.version in repository.models()["m"] for alias in named.values())


def look_at(repository: Repository, folder: Path, version: str, seed: int) -> None:
    out = folder / "checked"
    shutil.rmtree(out, ignore_errors=True)
    repository.pull("m", version, out)
    write_model(folder / "expected.safetensors", seed)
    assert (out / "m.safetensors").read_bytes() == (folder / "expected.safetensors").read_bytes(), version


def main() -> int:
    root, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    moments = random.Random(seed)
    for number in range(kills):
        folder = root / f"{number // 10}"  # a history that stays short keeps `verify` quick
        folder.mkdir(exist_ok=True)
        victim = in_child(lambda folder=folder, number=number: act_forever(folder, seed + number))  # type: ignore[misc]
        delay_s = moments.uniform(0.0, 0.4)
        time.sleep(delay_s)
        os.kill(victim, signal.SIGKILL)
        _, status = os.waitpid(victim, 0)
        if not os.WIFSIGNALED(status):
            say(f"kill {number} (seed {seed}): the victim ended by itself")
            return 1
        checker = in_child(lambda folder=folder: check(folder))  # type: ignore[misc]
        _, status = os.waitpid(checker, 0)
        if status:
            say(f"kill {number} (seed {seed}), {delay_s:.3f} s: the repository was harmed")
            return 1
        say(f"kill {number}: {delay_s:.3f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
