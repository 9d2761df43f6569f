"""Speeds on a CUDA device, beside the device's own copy in the same run; rewrites the table in docs/cuda.md.

Kernels are timed by the device's clock with their input on the device; whole calls in wall time. Every output is
checked. Weights are pairs of real training, over and over: those of the shared data, where it is there, else a model
that is trained here. nvCOMP is measured where it is installed. Needs a build with CUDA and takes some minutes.

    python benches/gpu_report.py            measure, print, write the document and benches/out/gpu.json
    python benches/gpu_report.py --print    and leave the document as it is
    python benches/gpu_report.py --smoke    small sizes, on an emulated device too: does the bench itself work?
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console

from gpu_arrays import Room, Scene, load_scenes
from gpu_calls import CallFigure, NotInThisBuildError, decode_call, encode_rows, load_call, swap_call
from gpu_rows import (
    Bench,
    PeerFailedError,
    PeerUnavailableError,
    Row,
    chunk_rows,
    copy_row,
    decode_row,
    diff_row,
    hash_row,
    nvcomp_rows,
)
from measure import Results, Verdict, machine
from report import DOCUMENT as BENCHMARKS
from report import markdown, replace_section
from textnlp_fast import _native, devices
from textnlp_fast.tensors.cuda_devices import CudaDevice

DOCUMENT = BENCHMARKS.with_name("cuda.md")
# Of weights, GB/s; what stands beside the figures.
LIMITS = {"decode sparse": 1000.0, "decode dense": 500.0, "encode": 300.0, "hash": 600.0}
DIFF_OF_COPY = 0.8
SWAP_S = 0.1
SWAP_EXTRA = 0.02


@dataclass(frozen=True)
class Sizes:
    room_bytes: int
    tile_bytes: int
    resident_bytes: int  # of decode_many
    call_bytes: int
    rounds: int


def sizes_for(device: CudaDevice, smoke: bool) -> Sizes:
    """16 GB resident, as 8 G parameters of bf16 are; less where the device is smaller."""
    if smoke:
        return Sizes(room_bytes=24_640, tile_bytes=8_192, resident_bytes=16_384, call_bytes=16_384, rounds=1)
    room = min(4 << 30, device.memory_bytes // 10)
    resident = min(16_000_000_000, device.memory_bytes * 6 // 10)
    return Sizes(room, 64 << 20, resident, min(1 << 30, resident), rounds=9)


def measured(device: CudaDevice, smoke: bool, say: Callable[[str], None]) -> Results:
    sizes = sizes_for(device, smoke)
    scenes, standalone = load_scenes(sizes.tile_bytes, say)
    skipped: list[str] = []
    rows = _rows(device, sizes, scenes, standalone, skipped, say)
    calls = list(_call_figures(scenes[0], sizes, device.number, skipped, say))
    return _results(device, sizes, rows, calls, skipped)


def _rows(
    device: CudaDevice,
    sizes: Sizes,
    scenes: list[Scene],
    standalone: Scene,
    skipped: list[str],
    say: Callable[[str], None],
) -> list[Row]:
    rooms = [Room(sizes.room_bytes // 64 * 64, device.number) for _ in range(2)]
    bench = Bench(device.number, sizes.rounds, *rooms)
    rows = list(_kernel_rows(bench, scenes, standalone, say))
    for attempt in (
        lambda: encode_rows(bench, scenes[0], standalone),
        lambda: nvcomp_rows(bench, standalone, xor=False),
        lambda: nvcomp_rows(bench, scenes[0], xor=True),
    ):
        rows += _tried(attempt, skipped, say)
    return rows


def _kernel_rows(
    bench: Bench, scenes: list[Scene], standalone: Scene, say: Callable[[str], None]
) -> Iterable[Row]:
    def told(row: Row) -> Row:
        say(f"{row.name}: {row.weights_rate:.0f} GB/s")
        return row

    yield told(copy_row(bench, scenes[0]))
    yield told(diff_row(bench, scenes[0]))
    for number, scene in enumerate(scenes):
        yield told(decode_row(bench, scene, in_place=number == 0))
    yield told(decode_row(bench, standalone, in_place=False))
    yield told(hash_row(bench, standalone))
    for row in chunk_rows(bench, standalone):
        yield told(row)


def _tried(attempt: Callable[[], Iterable[Row]], skipped: list[str], say: Callable[[str], None]) -> list[Row]:
    rows: list[Row] = []
    try:
        for row in attempt():
            rows.append(row)
            say(f"{row.name}: {row.weights_rate:.0f} GB/s")
    except (NotInThisBuildError, PeerUnavailableError, PeerFailedError) as error:
        say(f"not measured: {error}")
        skipped.append(str(error))
    return rows


def _call_figures(
    scene: Scene, sizes: Sizes, device: int, skipped: list[str], say: Callable[[str], None]
) -> Iterable[CallFigure]:
    attempts = (
        (decode_call, sizes.resident_bytes),
        (swap_call, sizes.call_bytes),
        (load_call, sizes.call_bytes),
    )
    for call, size in attempts:
        try:
            figure = call(scene, size, device, sizes.rounds)
        except NotInThisBuildError as error:
            say(f"not measured: {error}")
            skipped.append(str(error))
            continue
        say(f"{figure.name}: {statistics.median(figure.seconds) * 1e3:.1f} ms")
        yield figure


def _results(
    device: CudaDevice, sizes: Sizes, rows: list[Row], calls: list[CallFigure], skipped: list[str]
) -> Results:
    results = Results("gpu", {"device": device.name, **machine()})
    results.settings = {
        "bytes": sizes.room_bytes,
        "bytes_a_tensor": sizes.tile_bytes,
        "rounds": sizes.rounds,
        "memory_gib": round(device.memory_bytes / 2**30, 1),
    }
    copy = next(row for row in rows if row.kind == "copy")
    results.add_table(
        "Kernels",
        ["what", "weights, GB/s", "read and written, GB/s", "of the copy", "coded, of the weights", "goal"],
        [
            [
                row.name,
                row.weights_rate,
                row.moved_rate,
                row.moved_rate / copy.moved_rate,
                row.share,
                _goal(row),
            ]
            for row in rows
        ],
        note="Medians, by the device's clock. Encoding is the whole call, nvCOMP's with what it allocates.",
    )
    results.add_table(
        "Whole calls, in wall time",
        ["what", "resident, GB", "ms", "extra device memory, of the resident"],
        [
            [
                figure.name,
                figure.resident_bytes / 1e9,
                statistics.median(figure.seconds) * 1e3,
                None if figure.extra_bytes is None else figure.extra_bytes / figure.resident_bytes,
            ]
            for figure in calls
        ],
    )
    results.paragraphs = [f"Not measured: {reason}." for reason in dict.fromkeys(skipped)]
    if not device.emulated:
        results.verdicts = list(_verdicts(rows, calls, copy))
    return results


def _goal(row: Row) -> str | None:
    if row.kind == "diff":
        return f"{DIFF_OF_COPY:.0%} of the copy"
    return f"{LIMITS[row.kind]:.0f} GB/s" if row.kind in LIMITS else None


def _verdicts(rows: list[Row], calls: list[CallFigure], copy: Row) -> Iterable[Verdict]:
    for row in rows:
        if row.kind == "diff":
            share = row.moved_rate / copy.moved_rate
            yield Verdict(f"{row.name}: {_goal(row)}", share >= DIFF_OF_COPY, f"{share:.0%}")
        elif row.kind in LIMITS:
            rate = row.weights_rate
            yield Verdict(f"{row.name}: {_goal(row)}", rate >= LIMITS[row.kind], f"{rate:.0f} GB/s")
    for figure in calls:
        if figure.kind != "swap":
            continue
        seconds = statistics.median(figure.seconds)
        size = f"{figure.resident_bytes / 1e9:.1f} GB"
        yield Verdict(
            f"{figure.name}, {size}: below {SWAP_S * 1e3:.0f} ms", seconds < SWAP_S, f"{seconds * 1e3:.1f} ms"
        )
        if figure.extra_bytes is not None:
            extra = figure.extra_bytes / figure.resident_bytes
            limit = f"below {SWAP_EXTRA:.0%} of extra device memory"
            yield Verdict(f"{figure.name}, {size}: {limit}", extra < SWAP_EXTRA, f"{extra:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--print", action="store_true", dest="only_print", help="leave the document as it is")
    parser.add_argument("--smoke", action="store_true", help="small sizes; nothing is written")
    arguments = parser.parse_args()
    console = Console()
    found = devices()
    if not found:
        console.print(f"nothing to measure: {_native.cuda_info()['reason']}", highlight=False)
        return
    if found[0].emulated and not arguments.smoke:
        console.print("nothing to measure: the device is emulated; --smoke tries the bench itself")
        return
    say = lambda line: console.print(line, style="dim", highlight=False)  # noqa: E731
    results = measured(found[0], arguments.smoke, say)
    results.show(console)
    if arguments.smoke:
        return
    sys.stdout.write(f"wrote {results.write()}\n")
    if not arguments.only_print:
        text = replace_section(DOCUMENT.read_text(encoding="utf-8"), "gpu", markdown(results))
        DOCUMENT.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {DOCUMENT}\n")


if __name__ == "__main__":
    main()
