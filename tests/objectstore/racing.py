"""Several writers at once."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable

from textnlp_fast.errors import ConflictError
from textnlp_fast.objectstore import ObjectStore

__all__ = ["increment", "run_together"]


def run_together(count: int, work: Callable[[int], object]) -> None:
    """Run ``work(0)`` to ``work(count - 1)`` in as many threads, released at once; errors come out here."""
    errors: list[BaseException] = []
    gate = threading.Barrier(count)

    def run(index: int) -> None:
        try:
            gate.wait(30)
            work(index)
        except BaseException as error:  # noqa: BLE001  handed to the test below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def increment(store: ObjectStore, key: str) -> None:
    """Add one to a counter that remembers its write ids: the way to count once when an answer may be lost.

    Answers are lost on good networks, too: a server may answer 500 to a writer that came second.
    """
    write_id = uuid.uuid4().hex
    while True:
        content, version = store.get_versioned(key)
        state = json.loads(content)
        if write_id in state["writes"]:
            return
        new = {"count": state["count"] + 1, "writes": [*state["writes"], write_id]}
        try:
            store.compare_and_swap(key, json.dumps(new).encode(), version)
            return
        except ConflictError:
            continue
