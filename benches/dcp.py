"""Distributed checkpoints of consecutive training steps: ours beside PyTorch's own files and its safetensors.

    python benches/dcp.py                        # RL steps of a trained model, and a made one of 512 MB
    python benches/dcp.py --size-mb 128 --rounds 3

Four gloo ranks hold equal rows of every tensor, as FSDP does. Each round makes the next step (of the trained pair: the
pair again, in a new place) and saves it with every contender, in a random order; all write to one disk and sync what
they have written before they are done (`sync_files`, PyTorch's default; a repository syncs folders as well). The clock
runs from when all ranks are ready until `dcp.save` has returned on all of them, planning and publishing included. Bytes
are those that appeared on the disk. At the end every contender's last step is loaded and compared, bit by bit.

Ours codes a step against what the ranks kept of the last one in memory; `first` is a save with nothing before it,
`cold` one of ranks that were restarted and read that from the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor

from pairs import CHECKPOINTS
from textnlp_fast.integrations.torch_dcp import RepositoryReader, RepositoryWriter
from textnlp_fast.integrations.torch_dcp.held import HELD

RANKS = 4
CHANGED = 0.01
OURS, PLAIN, SAFE = "ours", "plain DCP", "DCP safetensors"
ROWS = (OURS, f"{OURS}, first", f"{OURS}, cold", PLAIN, SAFE)
#: The acceptance criterion: of the bytes of plain DCP.
MOST_BYTES = 0.1
State = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size-mb", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-dcp-") as folder:
        figures = launch(options, Path(folder))
    for pair, rows in figures.items():
        print(
            f"\n{pair}: {rows[PLAIN]['bytes'] / 1e6:.2f} MB by plain DCP, medians of {options.rounds} steps"
        )
        print(f"| {'':16} | {'MB':>8} | {'of plain':>8} | {'s':>7} | {'of plain':>8} |")
        print("|---|---|---|---|---|")
        for name in ROWS:
            row = rows[name]
            print(
                f"| {name:16} | {row['bytes'] / 1e6:8.2f} | {row['bytes'] / rows[PLAIN]['bytes']:8.1%} "
                f"| {row['seconds']:7.3f} | {row['of_plain']:8.2f} |"
            )
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")
    fails = [
        pair
        for pair, rows in figures.items()
        if rows[OURS]["bytes"] > MOST_BYTES * rows[PLAIN]["bytes"] or rows[OURS]["of_plain"] > 1
    ]
    for pair in fails:
        print(f"{pair}: more than a tenth of plain DCP's bytes, or slower", file=sys.stderr)
    return 1 if fails else 0


def launch(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Forks the ranks, for importing torch takes longer than the saves, and hears what the first of them measured."""
    (folder / "work").mkdir()
    pids = []
    for rank in range(RANKS):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                run_rank(rank, options, folder)
                code = 0
            except BaseException:  # noqa: BLE001  (the parent hears of it by the exit status)
                traceback.print_exc()
            os._exit(code)
        pids.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    if any(statuses):
        raise SystemExit("a rank failed")
    return dict(json.loads((folder / "figures.json").read_text()))


def run_rank(rank: int, options: argparse.Namespace, folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ["LOCAL_WORLD_SIZE"] = str(RANKS)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    mesh = DeviceMesh("cpu", list(range(RANKS)))
    figures: dict[str, Any] = {}
    for label, base, target in trained_pairs():
        pair = _Pair(rank, folder / "work", [sharded(base, mesh), sharded(target, mesh)])
        figures[label] = pair.measure(options.rounds)
    made = made_state(rank, options.size_mb << 20, mesh)
    label = f"made, {options.size_mb} MB, {CHANGED:.0%} of weights by an ULP"
    figures[label] = _Steps(rank, folder / "work", made).measure(options.rounds)
    if rank == 0:
        (folder / "figures.json").write_text(json.dumps(figures))
    dist.barrier()


def trained_pairs() -> list[tuple[str, dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """Consecutive steps of reinforcement learning; none without the checkpoints."""
    names = [("base", "rl_0001"), ("rl_0100", "rl_0101")]
    if not CHECKPOINTS.is_dir():
        print(f"{CHECKPOINTS} is not there: the trained pairs are left out", file=sys.stderr)
        return []
    return [
        (f"{old} -> {new}", *(load_file(CHECKPOINTS / f"{each}.safetensors") for each in (old, new)))
        for old, new in names
    ]


def sharded(tensors: dict[str, torch.Tensor], mesh: DeviceMesh) -> State:
    return {
        name: distribute_tensor(tensor, mesh, [Shard(0)]) if tensor.dim() else tensor
        for name, tensor in tensors.items()
    }


def made_state(rank: int, size_bytes: int, mesh: DeviceMesh) -> State:
    """Matrices in bf16 with the spread of trained weights; each rank makes its own rows."""
    width, rows = 2048, 2048
    count = max(1, size_bytes // (2 * width * rows))
    generator = torch.Generator().manual_seed(rank)
    state = {}
    for number in range(count):
        local = torch.randn(rows // RANKS, width, generator=generator).mul_(0.02).to(torch.bfloat16)
        state[f"layers.{number}.weight"] = dist.tensor.DTensor.from_local(local, mesh, [Shard(0)])
    return state


class _Contest:
    """Contenders that save the same states. Rounds are timed on all ranks together."""

    def __init__(self, rank: int, work: Path) -> None:
        self._rank = rank
        self._work = work
        self._order = random.Random(1)
        self._seen: dict[str, dict[str, list[float]]] = {name: {"bytes": [], "seconds": []} for name in ROWS}

    def timed(self, name: str, place: Path, save: Callable[[], Any]) -> None:
        before = size_of(place) if self._rank == 0 else 0
        dist.barrier()
        started = time.perf_counter()
        save()
        dist.barrier()
        seconds = time.perf_counter() - started
        if self._rank == 0:
            self._seen[name]["bytes"].append(size_of(place) - before)
            self._seen[name]["seconds"].append(seconds)

    def save_files(self, name: str, number: int, state: State) -> Path:
        place = self._work / f"{name.replace(' ', '-')}-{number}"
        if self._rank == 0:
            place.mkdir()
        dist.barrier()
        if name == PLAIN:
            self.timed(name, place, lambda: dcp.save(state, storage_writer=dcp.FileSystemWriter(place)))
        else:
            writer = dcp.HuggingFaceStorageWriter(str(place), save_distributed=True)
            self.timed(name, place, lambda: dcp.save(state, storage_writer=writer))
        return place

    def report(self) -> dict[str, Any]:
        plain = self._seen[PLAIN]["seconds"]
        return {
            name: {
                "bytes": statistics.median(row["bytes"]),
                "seconds": statistics.median(row["seconds"]),
                # Of rows that have a time in each round the ratios are taken inside the rounds.
                "of_plain": statistics.median(
                    [own / other for own, other in zip(row["seconds"], plain, strict=True)]
                    if len(row["seconds"]) == len(plain)
                    else [statistics.median(row["seconds"]) / statistics.median(plain)]
                ),
            }
            for name, row in self._seen.items()
            if row["bytes"]
        }

    def clean(self, *places: Path) -> None:
        dist.barrier()
        if self._rank == 0:
            for place in places:
                shutil.rmtree(place)
        dist.barrier()


class _Pair(_Contest):
    """Two states: the first is saved, then the second, in a new place each round."""

    def __init__(self, rank: int, work: Path, states: list[State]) -> None:
        super().__init__(rank, work)
        self._base, self._target = states

    def measure(self, rounds: int) -> dict[str, Any]:
        for number in range(rounds + 1):
            if number == 1:  # the first round warms everything up
                for row in self._seen.values():
                    row["bytes"], row["seconds"] = [], []
            for name in self._order.sample([OURS, PLAIN, SAFE], 3):
                if name == OURS:
                    self.ours(number, last=number == rounds)
                    continue
                place = self.save_files(name, number, self._target)
                if number == rounds:
                    check(self._target, files_reader(name, place))
                self.clean(place)
        return self.report()

    def ours(self, number: int, *, last: bool) -> None:
        HELD.clear()
        place = self._work / f"repository-{number}"
        if self._rank == 0:
            place.mkdir()
        dist.barrier()
        writer = RepositoryWriter(place, "model")

        def save(state: State, version: str) -> Callable[[], Any]:
            return lambda: dcp.save(state, storage_writer=writer, checkpoint_id=version)

        self.timed(f"{OURS}, first", place, save(self._base, "1"))
        self.timed(OURS, place, save(self._target, "2"))
        HELD.clear()
        if last:
            check(self._target, RepositoryReader(place, "model"))
        again = self._work / f"repository-{number}-cold"
        writer = RepositoryWriter(again, "model")
        save(self._base, "1")()
        HELD.clear()
        self.timed(f"{OURS}, cold", again, save(self._target, "2"))
        self.clean(place, again)


class _Steps(_Contest):
    """A model that goes on, a step each round."""

    def __init__(self, rank: int, work: Path, state: State) -> None:
        super().__init__(rank, work)
        self._state = state
        self._random = np.random.default_rng(rank)

    def step(self) -> None:
        for tensor in self._state.values():
            words = tensor.to_local().view(torch.int16).numpy().reshape(-1)
            places = self._random.integers(0, words.size, int(words.size * CHANGED))
            words[places] += self._random.choice(np.array([-1, 1], np.int16), places.size)

    def measure(self, rounds: int) -> dict[str, Any]:
        HELD.clear()
        place = self._work / "repository"
        if self._rank == 0:
            place.mkdir()
        dist.barrier()
        writer = RepositoryWriter(place, "model")

        def save() -> None:
            dcp.save(self._state, storage_writer=writer)

        self.timed(f"{OURS}, first", place, save)
        for number in range(rounds):
            self.step()
            files = []
            for name in self._order.sample([OURS, PLAIN, SAFE], 3):
                if name == OURS:
                    self.timed(OURS, place, save)
                else:
                    files.append(self.save_files(name, number, self._state))
                    if number == rounds - 1:
                        check(self._state, files_reader(name, files[-1]))
            self.clean(*files)
        check(self._state, RepositoryReader(place, "model"))
        self.step()
        HELD.clear()
        self.timed(f"{OURS}, cold", place, save)
        self.clean(place)
        return self.report()


def files_reader(name: str, place: Path) -> Any:
    return dcp.FileSystemReader(place) if name == PLAIN else dcp.HuggingFaceStorageReader(str(place))


def check(state: State, reader: Any) -> None:
    """Loads what was saved into another state and compares all bits of this rank's rows."""
    blank = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    dcp.load(blank, storage_reader=reader)
    for name, tensor in state.items():
        local, other = (
            each.to_local() if hasattr(each, "to_local") else each for each in (tensor, blank[name])
        )
        if not torch.equal(local.view(torch.uint8), other.view(torch.uint8)):
            raise SystemExit(f"{name} came back with other bits")


def size_of(place: Path) -> int:
    size = 0
    for path in place.rglob("*"):
        # What announced a save is removed in the background once that is there.
        with suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    return size


if __name__ == "__main__":
    raise SystemExit(main())
