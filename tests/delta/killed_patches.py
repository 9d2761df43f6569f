"""Creates and applies patches in a loop until it is killed; run by test_patch_kill.py, once, as a process of its own.

Arguments: folder, number of kills, seed. Prints a line for each kill. Forks a child for each part, so that nothing
waits for Python to start; this process itself never starts a thread.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

from faults.children import in_child, say
from textnlp_fast.delta import apply_patch, create_patch, read_patch

WINDOW = 1 << 14
Files = dict[str, bytes]


def model(seed: int) -> Files:
    """Six files of 64 KB; two stay as they are, one changes its name with the seed."""
    files = {}
    for number in range(6):
        data = bytearray(random.Random(number).randbytes(1 << 16))
        if number % 3:
            for at in range(seed % 7, len(data), 50):
                data[at] ^= 1 + seed % 3
        header = b'{"w":{"dtype":"U8","shape":[65536],"data_offsets":[0,65536]}}'
        name = f"part-{number}" if number < 5 else f"last-{seed % 2}"
        files[f"{name}.safetensors"] = len(header).to_bytes(8, "little") + header + bytes(data)
    return files


def write(root: Path, files: Files) -> None:
    root.mkdir(parents=True)
    for name, data in files.items():
        (root / name).write_bytes(data)


def tree(root: Path) -> Files:
    return {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}


def prepare(folder: Path) -> None:
    for seed in range(2):
        write(folder / f"v{seed}", model(seed))
    for seed in range(2):
        create(folder, seed, folder / f"{seed}.tnpatch")


def create(folder: Path, seed: int, out: Path) -> None:
    create_patch(folder / f"v{seed}", folder / f"v{1 - seed}", out, window_bytes=WINDOW, threads=2)


def work_forever(folder: Path) -> None:
    """Makes a patch and a new directory, and updates one in place, to and fro."""
    out, live = folder / "out", folder / "live"
    while True:
        for seed in range(2):
            create(folder, seed, folder / "again.tnpatch")
            apply_patch(folder / f"{seed}.tnpatch", folder / f"v{seed}", out, threads=2)
            shutil.rmtree(out)
            apply_patch(folder / f"{seed}.tnpatch", live, live, threads=2)


def check(folder: Path) -> None:
    """What has to hold after a kill."""
    out, live, again = folder / "out", folder / "live", folder / "again.tnpatch"
    wanted = [model(0), model(1)]
    hidden = [path for path in folder.rglob(".*") if "textnlp-fast-partial" in path.name]
    say(f"left behind: {len(hidden)}")
    if again.exists():
        read_patch(again)
        assert again.read_bytes() in [(folder / f"{seed}.tnpatch").read_bytes() for seed in range(2)]
    if out.exists():
        # The loop removes it file by file; what is there is whole.
        found = tree(out)
        assert any(found.items() <= files.items() for files in wanted), "a partial file under its own name"
        shutil.rmtree(out)
    committed = (live / ".textnlp-fast-partial" / "commit").exists()
    say(f"amid the renames: {int(committed)}")
    if not committed:
        assert tree(live) in wanted, "the update in place was begun and cannot be finished"
    # Whichever way it went, running it again ends it.
    seed = 0 if tree(live) == wanted[0] else 1
    if committed:
        note = (live / ".textnlp-fast-partial" / "commit").read_bytes()
        target = [read_patch(folder / f"{number}.tnpatch").patch.target.digest for number in range(2)]
        seed = next(number for number in range(2) if f"to {target[number]}".encode() in note)
    apply_patch(folder / f"{seed}.tnpatch", live, live, threads=2)
    assert tree(live) == wanted[1 - seed]
    assert not (live / ".textnlp-fast-partial").exists()
    create(folder, 0, again)
    apply_patch(again, folder / "v0", out, threads=2)
    assert tree(out) == wanted[1]
    shutil.rmtree(out)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")], "the next run cleans up"


def main() -> int:
    folder, kills, seed = Path(sys.argv[1]) / "models", int(sys.argv[2]), int(sys.argv[3])
    moments = random.Random(seed)

    def begin() -> None:
        prepare(folder)
        write(folder / "live", model(0))

    if os.waitpid(in_child(begin), 0)[1]:
        return 1
    for number in range(kills):
        worker = in_child(lambda: work_forever(folder))
        delay_s = moments.uniform(0.0, 0.15)
        time.sleep(delay_s)
        os.kill(worker, signal.SIGKILL)
        _, status = os.waitpid(worker, 0)
        if not os.WIFSIGNALED(status):
            say(f"kill {number}: the worker ended by itself")
            return 1
        if os.waitpid(in_child(lambda: check(folder)), 0)[1]:
            say(f"kill {number}, after {delay_s:.3f} s: something was harmed")
            return 1
        say(f"kill {number}: {delay_s:.3f} s")
        sys.stdout.flush()  # the next child must not inherit it
    return 0


if __name__ == "__main__":
    sys.exit(main())
