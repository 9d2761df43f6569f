"""Made tests/compat/repositories; nobody has a reason to make again what is committed there.

`format-1`: three versions, deltas, a tied tensor, raw windows, a folder, an empty file.
`collected`: a version deleted and its marker, one pushed again whose object has a suffix, one stored anew, one with a
recipe, an alias, names that were swept, and what a killed push left.

Run as `PYTHONPATH=tests python tests/compat/make_repositories.py NAME`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from garbage.hooks import HookedStore
from storage.conftest import Makers
from textnlp_fast.storage import CollectionOptions, Registry, Repository, TransferOptions

PLACE = Path(__file__).parent / "repositories"
Expected = dict[str, dict[str, str]]


def digests(folder: Path) -> dict[str, str]:
    return {path: hashlib.sha256(data).hexdigest() for path, data in Makers.tree(folder).items()}


def make_format_1(place: Path, work: Path) -> Expected:
    options = TransferOptions(shard_bytes=1 << 16)
    repository = Repository.open(place, create=True, options=options, window_bytes=1 << 12)
    tensors = Makers.tensors(3, rows=32, layers=2)
    tensors["tied.weight"] = tensors["layers.0.q_proj.weight"]
    expected: Expected = {}
    for number in range(3):
        folder = Makers.directory(work / str(number), tensors)
        (folder / "tokenizer" / "vocab.json").write_text(json.dumps({"a": number}))
        if number == 2:
            (folder / "notes.txt").write_text("raw\n" * 8)
            repository = Repository.open(place, options=TransferOptions(compression=False))
        repository.push(
            folder, "org/tiny", f"1.{number}.0", message=f"größer {number}", metadata={"n": str(number)}
        )
        expected[f"1.{number}.0"] = digests(folder)
        if number == 0:
            tensors = Makers.nudge(tensors, 1)
            tensors["tied.weight"] = tensors["layers.0.q_proj.weight"]
    return expected


class Killed(Exception):
    """Ends a push where a kill would."""


def make_collected(place: Path, work: Path) -> Expected:
    options = TransferOptions(shard_bytes=1 << 16, threads=1, prices=None)
    repository = Repository.open(place, create=True, options=options, window_bytes=1 << 12)
    tensors = Makers.tensors(4, rows=16, layers=1)
    folders = []
    for number in range(6):
        folders.append(Makers.write(work / str(number) / "model.safetensors", tensors).parent)
        repository.push(folders[-1], "org/tiny", f"1.{number}.0")
        tensors = Makers.nudge(tensors, number, 0.3)
    fused = {name: array for name, array in tensors.items() if "q_proj" not in name and "up_proj" not in name}
    fused["fused"] = np.concatenate([tensors["layers.0.q_proj.weight"], tensors["layers.0.up_proj.weight"]])
    folders.append(Makers.write(work / "6" / "model.safetensors", fused).parent)
    Registry(repository, actor="the maker").set_alias("org/tiny", "champion", "1.4.0")

    def collect(**chosen: Any) -> None:
        repository.collect_garbage(CollectionOptions(delete=True, grace_s=0, push_grace_s=0, **chosen))

    collect(versions=[("org/tiny", "1.5.0")])
    repository.push(folders[5], "org/tiny", "1.5.0")
    repository.push(folders[6], "org/tiny", "1.6.0")
    collect(versions=[("org/tiny", f"1.{number}.0") for number in range(4)], rebase=True)

    def kill() -> None:
        raise Killed

    when = lambda verb, key: verb == "compare_and_swap" and key.endswith("2.0.0.json")  # noqa: E731
    stopping: Any = HookedStore(repository.store, kill, when=when)
    with suppress(Killed):
        Repository(stopping, options).push(folders[0], "org/tiny", "2.0.0")
    return {f"1.{number}.0": digests(folders[number]) for number in (4, 5, 6)}


MAKERS: dict[str, Callable[[Path, Path], Expected]] = {"format-1": make_format_1, "collected": make_collected}


def main(name: str) -> None:
    place = PLACE / name
    shutil.rmtree(place, ignore_errors=True)
    with tempfile.TemporaryDirectory() as work:
        expected = MAKERS[name](place, Path(work))
    for folder in (".tmp", ".locks", "leases"):
        shutil.rmtree(place / folder, ignore_errors=True)
    (PLACE / f"{name}.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))  # type: ignore[func-returns-value]
