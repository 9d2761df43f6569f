"""Timing several contenders fairly on one busy or quiet machine, and printing what came out.

A figure here is always one contender beside the others in the same run: rounds go round-robin in a new random
order each time, so that a neighbour's burst of work hits all alike; medians and minima are kept, never means.
Memory is mapped and touched before anything is timed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import json
import mmap
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

Bytes: TypeAlias = npt.NDArray[np.uint8]

OUT_DIRECTORY = Path(__file__).parent / "out"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_TOP_PAD = -1, -3, -2


def keep_freed_memory() -> None:
    """Ask glibc to reuse freed blocks instead of handing them back to the kernel.

    Contenders whose API allocates its result on each call would otherwise be timed on page faults (2 GB/s).
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc takes
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TOP_PAD, 64 << 20)
    except (OSError, AttributeError):
        return  # not glibc: its allocator decides


def allowed_cores() -> set[int]:
    """The cores that this process may run on; none where the system has no such call."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def pin_to_one_core() -> int:
    """Pin this process to its last allowed core and return it; -1 where the system has no such call."""
    if not hasattr(os, "sched_setaffinity"):
        return -1
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def buffer(size_bytes: int) -> Bytes:
    """Zeroed memory of its own mapping, on huge pages where the kernel gives them, every page touched."""
    mapping = mmap.mmap(-1, max(size_bytes, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # A kernel without huge pages refuses: small ones then, for all contenders alike.
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(mapping, dtype=np.uint8)[:size_bytes]
    array.fill(0)
    return array


def copy_of(data: Bytes) -> Bytes:
    """The same bytes in a mapping of their own (see ``buffer``)."""
    copy = buffer(data.size)
    copy[:] = data
    return copy


def cpu_seconds() -> float:
    """Processor time of this process and of the children it has waited for: peers may be programs."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender over all rounds."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)

    def gigabytes_per_second(self, size_bytes: int) -> float:
        return size_bytes / self.median / 1e9


def race(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    seed: int = 0,
) -> dict[str, Timing]:
    """Time every contender ``rounds`` times, interleaved in a fresh random order each round.

    ``before`` runs ahead of each timed call and is not timed: it restores what an in-place contender changed.
    ``clock``: wall time, or ``time.process_time`` on a machine that others keep busy.
    """
    order = list(contenders)
    shuffle = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for number in range(-warmup, rounds):
        shuffle.shuffle(order)
        for name in order:
            run = contenders[name]
            before()
            start = clock()
            run()
            elapsed = clock() - start
            if number >= 0:
                seconds[name].append(elapsed)
    return {name: Timing(name, tuple(taken)) for name, taken in seconds.items()}


def paired_ratio(ours: Timing, theirs: Timing) -> float:
    """How many times faster ``ours`` is: the median over rounds of the ratio inside each round.

    Rounds that a neighbour slowed down hit both sides, so this is steadier than the ratio of two medians.
    """
    return statistics.median(t / o for o, t in zip(ours.seconds, theirs.seconds, strict=True))


# --- what was measured, and on what ---


def first_line(command: Sequence[str]) -> str:
    """What a program prints first, for instance its version; "absent" where it is not installed."""
    program = shutil.which(command[0])
    if program is None:
        return "absent"
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False, timeout=20)
    return (done.stdout or done.stderr).splitlines()[0] if (done.stdout or done.stderr) else "unknown"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "CPU part")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # no procfs
    return platform.processor() or platform.machine()


def _cache_sizes() -> str:
    sizes = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / part).read_text().strip() for part in ("level", "type", "size"))
        except OSError:
            continue
        sizes.append(f"L{level}{'' if kind == 'Unified' else kind[0].lower()} {size}")
    return ", ".join(sizes) or "unknown"


def version_of(package: str) -> str:
    """The installed version of a PyPI package, or "absent"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def machine(packages: Iterable[str] = ()) -> dict[str, str]:
    """What a reader needs to judge the figures: processor, caches, load, kernel, compiler, versions."""
    try:
        load = f"{os.getloadavg()[0]:.2f}"
    except OSError:
        load = "unknown"
    facts = {
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "caches": _cache_sizes(),
        "load_at_start": load,
        "kernel": f"{platform.system()} {platform.release()}",
        "compiler": first_line([os.environ.get("CXX", "c++"), "--version"]),
        "python": platform.python_version(),
    }
    return facts | {name: version_of(name) for name in packages}


# --- results ---


@dataclass
class Verdict:
    """One acceptance criterion and what was measured. ``passed`` None: not measured, ``note`` says why."""

    criterion: str
    passed: bool | None
    measured: str
    note: str = ""


@dataclass
class Results:
    """All that one bench found; printed as tables and written as JSON for the report."""

    bench: str
    machine: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    tables: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    paragraphs: list[str] = field(default_factory=list)

    def add_table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, note: str = ""
    ) -> None:
        self.tables.append(
            {"title": title, "columns": list(columns), "rows": [list(r) for r in rows], "note": note}
        )

    def show(self, console: Console | None = None) -> None:
        console = console or Console(width=max(Console().width, 150))
        for name, value in self.machine.items():
            console.print(f"  [dim]{name}:[/] {value}", highlight=False)
        for table in self.tables:
            view = Table(
                title=table["title"], title_justify="left", caption=table["note"], caption_justify="left"
            )
            for number, column in enumerate(table["columns"]):
                view.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
            for row in table["rows"]:
                view.add_row(*(cell(value) for value in row))
            console.print(view)
        for text in self.paragraphs:
            console.print(text, highlight=False)
        for verdict in self.verdicts:
            mark = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: "[yellow]not measured[/]"}[
                verdict.passed
            ]
            tail = f" ({verdict.note})" if verdict.note else ""
            console.print(f"{mark}  {verdict.criterion}: {verdict.measured}{tail}", highlight=False)

    def write(self, path: Path | None = None) -> Path:
        path = path or OUT_DIRECTORY / f"{self.bench}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        return path


def read_results(path: Path) -> Results:
    """Results that ``Results.write`` wrote."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["verdicts"] = [Verdict(**verdict) for verdict in raw["verdicts"]]
    return Results(**raw)


def cell(value: object) -> str:
    """A value as a table shows it: three decimals below a hundred, none above, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)
