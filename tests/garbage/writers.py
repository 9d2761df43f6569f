"""Many writers on one repository at once: what each does, and what must be there when all are done.

As a program: FOLDER WRITERS STEPS SEED. Forks the writers after Python has started once, and prints what each did.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from storage.conftest import Makers
from textnlp_fast.errors import ConflictError, VersionNotFoundError
from textnlp_fast.storage import CollectionOptions, Repository, TransferOptions

OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=1)
CONTENTS = 6


def make_files(folder: Path) -> list[Path]:
    """Models that share tensors, and differ a little or much."""
    tensors = Makers.tensors(rows=8, layers=1)
    made = []
    for number in range(CONTENTS):
        made.append(Makers.write(folder / str(number) / "m.safetensors", tensors).parent)
        tensors = (
            Makers.nudge(tensors, number, 0.2) if number % 3 else Makers.tensors(number, rows=8, layers=1)
        )
    return made


def work(
    repository: Repository, files: list[Path], writer: int, steps: int, seed: int
) -> dict[str, int | None]:
    """One writer's share: versions of its own, one that all push, deletions, collections. What it left, by version."""
    choice = random.Random(seed * 1000 + writer)
    mine: dict[str, int | None] = {}
    for step in range(steps):
        content = choice.randrange(CONTENTS)
        repository.push(files[content], "m", f"1.{writer}.{step}")
        mine[f"1.{writer}.{step}"] = content
        repository.push(files[step % CONTENTS], "m", f"9.0.{step}")
        what = choice.choice(["delete", "collect", "rest"])
        doomed = choice.choice([version for version, held in mine.items() if held is not None])
        if what == "delete" and _delete(repository, doomed, rebase=step % 2 == 1):
            mine[doomed] = None
        elif what == "collect":
            with suppress(ConflictError):  # another collection is at work
                repository.collect_garbage(_options(rebase=step % 2 == 1))
    return mine


def _options(**more: Any) -> CollectionOptions:
    return CollectionOptions(delete=True, grace_s=0, push_grace_s=60, lease_s=0.3, **more)


def _delete(repository: Repository, version: str, *, rebase: bool) -> bool:
    """Whether it is gone. A collection that lost its lease may have removed it before: then this asks again."""
    while True:
        try:
            report = repository.collect_garbage(_options(versions=[("m", version)], rebase=rebase))
        except ConflictError:  # another collection is at work, or took over
            time.sleep(random.random() / 10)
        except VersionNotFoundError:
            return True
        else:
            return f"m@{version}" not in report.spared


def check(
    repository: Repository, files: list[Path], left: list[dict[str, int | None]], steps: int, out: Path
) -> None:
    """Nothing lost, nothing half there, nothing left over."""
    expected: dict[str, int] = {f"9.0.{step}": step % CONTENTS for step in range(steps)}
    for mine in left:
        expected.update({version: content for version, content in mine.items() if content is not None})
    assert sorted(repository.models()["m"]) == sorted(expected)
    report = repository.verify()
    assert report.ok, report.problems
    for version, content in expected.items():
        repository.pull("m", version, out / version)
        assert Makers.tree(out / version) == Makers.tree(files[content]), version
    for _ in range(2):
        last = repository.collect_garbage(
            CollectionOptions(delete=True, grace_s=0, push_grace_s=0, lease_s=0.3)
        )
    assert (last.swept, last.unused_objects, last.pushes) == (0, 0, 0)
    report = repository.verify(deep=False)
    assert report.ok, report.problems
    assert not report.unreferenced


def main() -> int:
    folder, writers, steps, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    files = make_files(folder / "files")
    Repository.open(folder / "repository", create=True, options=OPTIONS, window_bytes=1 << 12)
    children: list[int] = []
    for writer in range(writers):
        child = os.fork()
        if not child:
            code = 1
            try:
                repository = Repository.open(folder / "repository", options=OPTIONS)
                left = work(repository, files, writer, steps, seed)
                (folder / f"{writer}.json").write_text(json.dumps(left))
                code = 0
            except BaseException:  # noqa: BLE001  a child has nobody else to tell
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    ended = [os.waitpid(child, 0)[1] for child in children]
    if any(ended):
        return 1
    left = [json.loads((folder / f"{writer}.json").read_text()) for writer in range(writers)]
    check(Repository.open(folder / "repository", options=OPTIONS), files, left, steps, folder / "out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
