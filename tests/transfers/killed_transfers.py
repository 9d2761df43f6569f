"""Transfers that are killed at random moments and begun again; run by test_kill.py as a process of its own.

Arguments: "download" or "upload", the store's URL, its endpoint, a folder, the number of kills, a seed. Prints a line
for each kill. Forks a child for each transfer, so that nothing waits for Python to start; this process itself never
starts a thread.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

from faults.children import in_child
from textnlp_fast.objectstore import open_store
from textnlp_fast.objectstore.transfers import (
    DownloadReport,
    TransferProgress,
    TransferSettings,
    UploadReport,
    download,
    upload,
)

STREAMS = 2
# Shared with the children: whether one of them went on, and whether one at this copy has moved something.
RESUMED, MOVED = mmap.mmap(-1, 1), mmap.mmap(-1, 1)
LEAST_PARTS = {"s3": 5 << 20, "az": 256 << 10, "gs": 256 << 10}
PARTS_A_SECOND = 20  # slow enough that a kill comes in the middle


def part_bytes(verb: str, url: str) -> int:
    return 256 << 10 if verb == "download" else LEAST_PARTS[url[:2]]


def settings(verb: str, url: str, folder: Path) -> TransferSettings:
    size = part_bytes(verb, url)
    return TransferSettings(
        part_bytes=size,
        streams=STREAMS,
        bandwidth_bytes_per_s=PARTS_A_SECOND * size,
        state_folder=folder / "state",
        progress=noted,
    )


def noted(progress: TransferProgress) -> None:
    if progress.done_bytes:
        MOVED[0] = 1


def is_complete(folder: Path) -> bool:
    """Whether a transfer was killed behind its end, which is that its journal goes: there is nothing to go on with,
    and who begins again moves all of it."""
    return bool(MOVED[0]) and not [*folder.glob("*.journal"), *(folder / "state").glob("*.json")]


def transfer(verb: str, url: str, endpoint: str, folder: Path, number: int) -> None:
    store = open_store(url, endpoint_url=endpoint)
    if verb == "download":
        report: DownloadReport | UploadReport = download(
            store, "model.bin", folder / f"copy-{number}.bin", settings(verb, url, folder)
        )
    else:
        report = upload(folder / "model.bin", store, f"copy-{number}.bin", settings(verb, url, folder))
    os.write(1, f"resumed {report.resumed_bytes}\n".encode())
    if report.resumed_bytes:
        RESUMED[0] = 1


def main() -> int:
    verb, url, endpoint, folder = sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])
    kills, moments = int(sys.argv[5]), random.Random(int(sys.argv[6]))
    number = done = 0
    busy = 1.0  # how much longer things take here: kills are to come in the middle
    while done < kills or not RESUMED[0]:
        if number >= 60:
            return 1
        MOVED[0] = 0
        # Each copy is killed a few times, then let through.
        for last in (False, False, True):
            child = in_child(lambda number=number: transfer(verb, url, endpoint, folder, number))  # type: ignore[misc]
            if not last:
                delay_s = moments.uniform(0.2, 0.8) * busy
                time.sleep(delay_s)
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status) and not is_complete(folder):
                done += 1
                busy *= 1.0 if RESUMED[0] else 1.3
                sys.stdout.write(f"kill of {number}: {delay_s:.3f} s\n")
                sys.stdout.flush()  # the next child must not inherit it
            elif status and not os.WIFSIGNALED(status):
                return 1
            else:
                busy *= 1.0 if last else 0.7
                break  # it was quicker than the kill
        number += 1
        sys.stdout.write(f"copied {number}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
