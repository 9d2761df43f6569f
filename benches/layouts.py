"""Quantised layouts, whole: weights with their scales and zeros, alone and against the version before.

The fp32 matrices of the self-made family are quantised into each layout (``quantised.py``), version by version. Ours
codes tensor by tensor, each under the element type that a push gives it; a peer takes each tensor too, as elements of
the width that suits it best. Everything is decoded and compared.

    python benches/layouts.py [--json]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import family
from entropy import entropy
from measure import Bytes, Results, buffer, copy_of, keep_freed_memory, machine
from ours import Ours, instruction_set
from peers.peer import Peer, PeerFailedError, PeerUnavailableError
from peers.roster import Roster, delta_size, standalone_size
from quantised import LAYOUTS, Matrix, Part
from textnlp_fast.contents.inventory import layout_dtype

_BASE = "base"
_TARGETS = ("sgd_0010", "lion_0010")
# Peers that know elements of one, two and four bytes; a packed layout may suit either.
_WIDTHS = {"U8": 1, "BF16": 2, "F32": 4}
_ALONE = ("zipnn", "openzl Huffman", "openzl FSE")
_AGAINST = ("BitX", "gaps+values zstd-3", "zstd-3 --patch-from", "XOR zipnn", "XOR openzl")


def matrices(weights: family.Weights) -> list[Matrix]:
    """What a quantiser would take: the matrices whose rows are whole groups of 128."""
    return [w for w in weights.values() if w.ndim == 2 and w.shape[1] % 128 == 0]


def positions_bits(part: Part) -> float:
    """Total bits of the bytes by frequency, those at each place of a word among themselves."""
    words = part.data.reshape(-1, part.word)
    return sum(entropy(words[:, place]) for place in range(part.word))


def coded_bytes(peer: Peer, target: Bytes, base: Bytes | None) -> int:
    payload = peer.encode(target, base)
    out = buffer(target.size)
    out.fill(0xA5)
    if not (peer.decode(payload, base, out) == target).all():
        raise PeerFailedError(f"{peer.name} gave back other bytes")
    return payload.size


def ours_bytes(target: Part, base: Part | None) -> int:
    peer = Ours(dtype=layout_dtype(target.dtype))
    return coded_bytes(peer, copy_of(target.data), None if base is None else copy_of(base.data))


def peers_bytes(rosters: Sequence[tuple[int, Roster]], name: str, target: Part, base: Part | None) -> int:
    """The smallest of the variants of one peer, and never more than the tensor itself."""
    sizes = [target.data.size]
    for width, roster in rosters:
        if target.data.size % width == 0:
            sides = copy_of(target.data), None if base is None else copy_of(base.data)
            sizes += [coded_bytes(variant, *sides) for variant in roster.get(name, ())]
    return min(sizes)


def parts_of(layout: Callable[[Matrix], Sequence[Part]], weights: family.Weights) -> list[Part]:
    return [part for matrix in matrices(weights) for part in layout(matrix)]


def run() -> Results:
    results = Results("layouts", machine(["zstandard", "zipnn", "openzl"]) | {"kernels": instruction_set()})
    keep_freed_memory()
    masters = family.load()
    elements = sum(matrix.size for matrix in matrices(masters[_BASE]))
    missing: list[str] = []
    alone = [(width, standalone_size(missing, dtype)) for dtype, width in _WIDTHS.items()]
    against = [(width, delta_size(missing, dtype)) for dtype, width in _WIDTHS.items()]
    rows: list[list[object]] = []
    for name, layout in LAYOUTS.items():
        parts = parts_of(layout, masters[_BASE])
        raw = sum(part.data.size for part in parts)
        floor = sum(min(positions_bits(part), 8 * part.data.size) for part in parts)
        found = [sum(ours_bytes(part, None) for part in parts)]
        found += [sum(peers_bytes(alone, peer, part, None) for part in parts) for peer in _ALONE]
        bits = [8 * size / elements for size in found]
        rows.append([name, 8 * raw / elements, bits[0], floor / elements, 8 * found[0] / floor, *bits[1:]])
    columns = ["layout", "raw", "ours", "H", "ours / H", *_ALONE]
    note = (
        "H: entropy of the bytes by frequency, a table for each tensor and each byte of a word, the tables for "
        "nothing. Small scale tensors pay for a header each."
    )
    results.add_table("Alone, bits per weight, scales and zeros included", columns, rows, note=note)
    for step in _TARGETS:
        rows = []
        for name, layout in LAYOUTS.items():
            pairs = list(zip(parts_of(layout, masters[step]), parts_of(layout, masters[_BASE]), strict=True))
            changed = sum(int((target.data != base.data).sum()) for target, base in pairs)
            raw = sum(target.data.size for target, _ in pairs)
            found = [sum(ours_bytes(target, base) for target, base in pairs)]
            for peer in _AGAINST:
                found.append(sum(peers_bytes(against, peer, target, base) for target, base in pairs))
            bits = [8 * size / elements for size in found]
            rows.append([name, 100 * changed / raw, *bits, bits[0] / min(bits[1:])])
        columns = ["layout", "bytes changed %", "ours", *_AGAINST, "ours / best"]
        results.add_table(f"{_BASE} -> {step}, bits per weight", columns, rows)
    results.paragraphs += missing
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="also write benches/out/layouts.json")
    arguments = parser.parse_args()
    try:
        results = run()
    except PeerUnavailableError as error:
        raise SystemExit(str(error)) from error
    results.show()
    if arguments.json:
        results.write()


if __name__ == "__main__":
    main()
