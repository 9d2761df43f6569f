"""Pushes in a loop until it is killed; run by test_kill.py, once, as a process of its own.

Arguments: folder, number of kills, seed. Prints a line for each kill. Forks a child for each part, so that
nothing waits for Python to start fifty times; this process itself never starts a thread.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

from faults.children import in_child, say
from textnlp_fast.storage import Repository, TransferOptions

OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=2)


def open_repository(folder: Path) -> Repository:
    return Repository.open(folder / "repository", create=True, options=OPTIONS, window_bytes=1 << 14)


def write_model(folder: Path, seed: int) -> Path:
    """A model of 1 MB: half of its tensors are new with each seed, the others differ a little.

    Those are in one piece in every second model that a loop pushes, so that each is made of the one before.
    """
    steady, moved = np.random.default_rng(1), np.random.default_rng(seed)
    tensors: dict[str, npt.NDArray[np.uint16]] = {}
    for number in range(8):
        array = steady.integers(0x3C00, 0x3D00, 1 << 16, np.uint16)
        if number % 2:
            array = moved.integers(0, 1 << 16, 1 << 16, np.uint16)
        else:
            array[:: 50 + seed % 7] += 1
        tensors[f"t{number}"] = array
    if seed // 1000 % 2:
        tensors["fused"] = np.concatenate([tensors.pop(f"t{number}") for number in (0, 2, 4, 6)])
    header, body = [], b""
    for name, array in tensors.items():
        end = len(body) + array.nbytes
        header.append(
            f'"{name}":{{"dtype":"BF16","shape":[{len(array)}],"data_offsets":[{len(body)},{end}]}}'
        )
        body += array.tobytes()
    text = ("{" + ",".join(header) + "}").encode()
    path = folder / f"model-{seed}.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def push_next(folder: Path, seed: int) -> None:
    repository = open_repository(folder)
    versions = repository.models().get("m", [])
    repository.push(write_model(folder, seed), "m", f"1.{len(versions)}.0")


def push_forever(folder: Path, seed: int) -> None:
    while True:
        push_next(folder, seed)
        seed += 1000


def check(folder: Path, seed: int) -> None:
    """What has to hold after a kill."""
    repository = open_repository(folder)
    before = leftovers(folder)
    report = repository.verify()
    assert report.ok, report.problems
    say(f"left behind: {before}")
    sys.stdout.flush()
    push_next(folder, seed)
    repository = open_repository(folder)
    newest = repository.models()["m"][-1]
    repository.pull("m", newest, folder / "out")
    pulled = next((folder / "out").glob("*.safetensors")).read_bytes()
    assert pulled == (folder / f"model-{seed}.safetensors").read_bytes()
    assert repository.verify("m", newest).ok


def leftovers(folder: Path) -> int:
    """Objects and temporary files that no version names: the kill came in the middle."""
    if not (folder / "repository" / "repository.json").exists():
        return 0
    temporaries = len(list((folder / "repository" / ".tmp").glob("*")))
    return temporaries + len(open_repository(folder).verify(deep=False).unreferenced)


def main() -> int:
    root, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    moments = random.Random(seed)
    for number in range(kills):
        folder = root / f"{number // 10}"  # a history that stays short keeps `verify` quick
        folder.mkdir(exist_ok=True)
        pusher = in_child(lambda folder=folder, number=number: push_forever(folder, number))  # type: ignore[misc]
        delay_s = moments.uniform(0.0, 0.25)
        time.sleep(delay_s)
        os.kill(pusher, signal.SIGKILL)
        _, status = os.waitpid(pusher, 0)
        if not os.WIFSIGNALED(status):
            say(f"kill {number}: the pusher ended by itself")
            return 1
        checker = in_child(lambda folder=folder, number=number: check(folder, 500 + number))  # type: ignore[misc]
        _, status = os.waitpid(checker, 0)
        if status:
            say(f"kill {number}, {delay_s:.3f} s into a push: the repository was harmed")
            return 1
        versions = len(list((folder / "repository" / "models").rglob("*.json")))
        say(f"kill {number}: {delay_s:.3f} s, {versions} versions")
        sys.stdout.flush()  # the next child must not inherit it
    return 0


if __name__ == "__main__":
    sys.exit(main())
