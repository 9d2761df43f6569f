"""Forks writers that change a registry until they are killed; prints what each was told to be done.

python killed_writers.py PLACE ROUNDS SEED
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from textnlp_fast.storage import Registry, Repository


def work(place: str, out: int, turn: int) -> None:
    registry = Registry(Repository.open(place), actor=f"writer-{turn}")
    for number in range(10_000):
        value = f"{turn}.{number}"
        registry.tag("m", "1.0.0", {"last": value})
        os.write(out, f"{value}\n".encode())


def main(place: str, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    for turn in range(rounds):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            try:
                work(place, writing, turn)
            finally:
                os._exit(1)
        os.close(writing)
        begun = os.read(reading, 1)  # it is at work
        time.sleep(chance.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading) as told:
            sys.stdout.write(begun.decode() + told.read())
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
