"""How much faster two threads are than one on a large tensor: the one bench of the codec that leaves its core."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from criteria import TWO_THREADS_AT_LEAST, at_least
from measure import Bytes, Results, buffer, copy_of, paired_ratio, race
from ours import Ours
from pairs import Pair
from peers.peer import PeerFailedError

_THREADS = (1, 2)


def _large(data: Bytes, size_bytes: int) -> Bytes:
    """``data`` over and over, about ``size_bytes`` in all: no frame of ours sees another, so repeats cost as much."""
    copies = max(1, size_bytes // data.size)
    return copy_of(np.tile(data, copies))


def add_scaling(results: Results, pair: Pair, cores: Iterable[int], *, size_bytes: int, rounds: int) -> None:
    """Adds a table and the verdict: one tensor of about ``size_bytes``, with its base and alone, in wall time.

    ``cores``: those that this process was given before it was pinned to one of them.
    """
    criterion = f"two threads at least {TWO_THREADS_AT_LEAST}x one thread on a large tensor"
    if len(set(cores)) < max(_THREADS):
        results.verdicts.append(at_least(criterion, {}, TWO_THREADS_AT_LEAST))
        return
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    target, base = (_large(side, size_bytes) for side in pair.joined())
    out = buffer(target.size)
    rows: list[list[object]] = []
    ratios = {}
    for what, beside in ((f"delta, {pair.name}", base), ("standalone", None)):
        coders = {threads: Ours(dtype=pair.format.name, threads=threads) for threads in _THREADS}
        encoders: dict[str, Callable[[], object]] = {}
        decoders: dict[str, Callable[[], object]] = {}
        for threads, coder in coders.items():
            payload = copy_of(coder.encode(target, beside))
            out.fill(0xA5)
            if not np.array_equal(coder.decode(payload, beside, out), target):
                raise PeerFailedError(f"{threads} threads gave back other bytes")
            encoders[str(threads)] = partial(coder.encode, target, beside)
            decoders[str(threads)] = partial(coder.decode, payload, beside, out)
        for direction, contenders in (("encode", encoders), ("decode", decoders)):
            one, two = race(contenders, rounds=rounds).values()
            speeds = [timing.gigabytes_per_second(target.size) for timing in (one, two)]
            ratios[f"{what}: {direction}"] = paired_ratio(two, one)
            rows.append([what, direction, *speeds, paired_ratio(two, one)])
    os.sched_setaffinity(0, pinned)
    columns = ["data", "direction", "1 thread", "2 threads", "2 threads / 1 thread"]
    note = (
        "Wall time: a machine that others keep busy has no second core to give, and shows less than there is."
    )
    title = f"Two threads: one tensor of {target.size / 1e6:.0f} MB, GB/s"
    results.add_table(title, columns, rows, note=note)
    results.verdicts.append(at_least(criterion, ratios if pair.real else {}, TWO_THREADS_AT_LEAST))
