"""Bits per weight of the codec beside its peers and beside entropy, every output decoded and compared.

Ours is coded tensor by tensor and counts every byte: headers, tables, frames. The peers may take all
tensors of a checkpoint as one array, and the smallest of their variants speaks for them. Encoding is timed
(processor time, the best of three, one core) only to tell which peers are fast enough to be practical.

    python benches/size.py [--json] [--skip bsdiff4,...] [--pairs sft_,sgd_] [--no-family]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from criteria import PRACTICAL_MB_S, Sizes, size_verdicts
from entropy import pooled_and_apart, standalone_bits, ulp_bits
from formats import FORMATS, Format
from measure import (
    Bytes,
    Results,
    buffer,
    copy_of,
    cpu_seconds,
    first_line,
    keep_freed_memory,
    machine,
    pin_to_one_core,
)
from ours import Ours, instruction_set
from pairs import (
    CHECKPOINTS,
    Pair,
    Tensor,
    family_checkpoints,
    family_pairs,
    join,
    real_checkpoints,
    real_pairs,
)
from peers.peer import Peer, PeerFailedError, PeerUnavailableError
from peers.roster import RECIPES, Roster, delta_size, standalone_size

_SLOW_S = 0.2


def coded(peer: Peer, target: Bytes, base: Bytes | None, out: Bytes) -> tuple[int, float]:
    """Payload bytes and encode MB/s of one peer, after a round trip that must be exact. A slow one is run once."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < 3 and seconds[0] < _SLOW_S):
        start = cpu_seconds()
        payload = peer.encode(target, base)
        seconds.append(cpu_seconds() - start)
    out.fill(0xA5)
    if not np.array_equal(peer.decode(payload, base, out), target):
        raise PeerFailedError(f"{peer.name} gave back other bytes")
    return payload.size, target.size / max(min(seconds), 1e-9) / 1e6


def ours_bits(targets: Sequence[Tensor], bases: Sequence[Tensor | None], form: Format) -> float:
    """Our bits per weight, each tensor coded by itself and decoded again."""
    peer = Ours(dtype=form.name)
    size = elements = 0
    for target, base in zip(targets, bases, strict=True):
        size += coded(peer, target.data, None if base is None else base.data, buffer(target.data.size))[0]
        elements += target.data.size // form.width
    return 8 * size / elements


def sizes(
    targets: Sequence[Tensor], bases: Sequence[Tensor] | None, roster: Roster, missing: list[str]
) -> Sizes:
    """Everything about one pair, or about one checkpoint by itself where ``bases`` is None."""
    form = FORMATS[targets[0].dtype]
    target, base = copy_of(join(tuple(targets))), None if bases is None else copy_of(join(tuple(bases)))
    out = buffer(target.size)
    sides = [[tensor.data for tensor in side] for side in (targets, bases) if side is not None]
    pooled, apart = pooled_and_apart(standalone_bits if bases is None else ulp_bits, form, *sides)
    found = Sizes(None, pooled, apart, {}, {}, {})
    try:
        found.ours = ours_bits(targets, bases or [None] * len(targets), form)
    except PeerUnavailableError as error:
        missing += [] if str(error) in missing else [str(error)]
    for name, variants in roster.items():
        measured = [coded(variant, target, base, out) for variant in variants]
        bits = [(8 * size * form.width / target.size, speed) for size, speed in measured]
        found.peers[name], found.speeds[name] = min(bits)
        fast = [size for size, speed in bits if speed >= PRACTICAL_MB_S]
        if fast:
            found.practical[name] = min(fast)
    return found


def low_rank_rows() -> list[list[object]]:
    """Rows of ``base -> lora_f32`` with the adapter at hand and with the one recovered; none are measured yet."""
    return []


def over_entropy_table(
    results: Results, title: str, found: Mapping[str, Sizes], pairs: Sequence[Pair]
) -> None:
    """Ours beside entropy, the limit and the best practical peer."""
    changed = {pair.name: _changed_percent(pair) for pair in pairs}
    rows: list[list[object]] = []
    for name, one in found.items():
        best = one.best()
        over = (None, None) if one.ours is None else (one.ours / one.pooled, one.ours / one.apart)
        practical = None if best is None else one.practical[best]
        row: list[object] = [name, changed[name], one.ours, one.pooled, one.apart, *over]
        rows.append([*row, best, practical, one.ratio(), one.ratio(RECIPES)])
    columns = [
        "pair",
        "changed %",
        "ours",
        "H pooled",
        "H per tensor",
        "ours / H pooled",
        "ours / H per tensor",
    ]
    note = (
        "H: empirical entropy of the difference in ULPs given the base's exponent, with one set of tables for all "
        "tensors or one for each, the tables for nothing (fp32: sign, length and six bits by frequency, the rest "
        f"raw). Best peer: the smallest of those that encode at {PRACTICAL_MB_S} MB/s or more in this run; best "
        "recipe: of those that are published ways to code a difference."
    )
    results.add_table(
        title, [*columns, "best peer", "its bits", "ours / best", "ours / best recipe"], rows, note=note
    )


def _changed_percent(pair: Pair) -> float:
    target, base = (pair.format.words(side) for side in pair.joined())
    return 100 * float(np.count_nonzero(target != base)) / target.size


def peers_tables(results: Results, what: str, found: Mapping[str, Sizes], *, real: bool) -> None:
    """Every peer's bits and, of the real pairs, how fast it encoded."""
    names = list(dict.fromkeys(name for one in found.values() for name in one.peers))
    bits = [[name, *(one.peers.get(peer) for peer in names)] for name, one in found.items()]
    speeds = [[name, *(one.speeds.get(peer) for peer in names)] for name, one in found.items()]
    results.add_table(f"{what}: the peers' bits per weight", ["pair", *names], bits)
    if real:
        results.add_table(f"{what}: encode speed of these peers, MB/s", ["pair", *names], speeds)


def standalone_table(results: Results, found: Mapping[str, Sizes]) -> None:
    names = list(dict.fromkeys(name for one in found.values() for name in one.peers))
    rows: list[list[object]] = []
    for name, one in found.items():
        over = None if one.ours is None else one.ours / one.apart
        row: list[object] = [name, one.ours, one.pooled, one.apart, over]
        rows.append(row + [one.peers.get(peer) for peer in names])
    columns = ["checkpoint", "ours", "H pooled", "H per tensor", "ours / H per tensor", *names]
    note = "H: entropy of the exponents, other bits raw; of I8, and of U8 (two int4 in a byte), entropy of the bytes."
    results.add_table("Standalone, bits per element", columns, rows, note=note)


def measured_pairs(pairs: Sequence[Pair], skip: Sequence[str], missing: list[str]) -> dict[str, Sizes]:
    rosters: dict[str, Roster] = {}
    found = {}
    for pair in pairs:
        dtype = pair.format.name
        if dtype not in rosters:
            rosters[dtype] = {n: p for n, p in delta_size(missing, dtype).items() if n not in skip}
        found[pair.name] = sizes(pair.target, pair.base, rosters[dtype], missing)
    return found


def measured_alone(
    checkpoints: Mapping[str, Sequence[Tensor]], skip: Sequence[str], missing: list[str]
) -> dict[str, Sizes]:
    found = {}
    for name, tensors in checkpoints.items():
        roster = {n: p for n, p in standalone_size(missing, tensors[0].dtype).items() if n not in skip}
        found[name] = sizes(tensors, None, roster, missing)
    return found


def run(arguments: argparse.Namespace) -> Results:
    packages = ["zstandard", "zipnn", "openzl", "pcodec", "bsdiff4", "textnlp-fast"]
    facts = machine(packages) | {"xdelta3": first_line(["xdelta3", "-V"]).partition(",")[0]}
    results = Results("size", facts | {"kernels": instruction_set()})
    pin_to_one_core()
    keep_freed_memory()
    skip, keys = arguments.skip.split(","), arguments.pairs.split(",")
    missing: list[str] = []
    results.settings = {
        "data": "real checkpoints and self-made ones" if CHECKPOINTS.is_dir() else "self-made checkpoints",
        "peers_take": "all tensors of a checkpoint at once",
        "ours_takes": "one tensor at a time",
    }
    families = {"Real training, AdamW": real_pairs()}
    if arguments.family:
        families["Self-made, momentum SGD and Lion"] = family_pairs()
    deltas: dict[str, Sizes] = {}
    pairs: list[Pair] = []
    for title, family in families.items():
        chosen = [pair for pair in family if any(key in pair.name for key in keys)]
        if chosen:
            found = measured_pairs(chosen, skip, missing)
            over_entropy_table(results, f"{title}: deltas, bits per weight", found, chosen)
            peers_tables(results, title, found, real=chosen[0].real)
            deltas |= found
            pairs += chosen
    rows = low_rank_rows()
    if rows:
        results.add_table("base -> lora_f32 with its low rank", ["what is known", "ours"], rows)
    real: dict[str, Sizes] = {}
    if arguments.pairs == "":
        real = measured_alone(real_checkpoints(), skip, missing)
        made = measured_alone(family_checkpoints(), skip, missing) if arguments.family else {}
        standalone_table(results, real | made)
    results.verdicts = size_verdicts(pairs, deltas, real)
    results.paragraphs += missing
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--skip", default="", help="peers to leave out, comma-separated")
    parser.add_argument(
        "--pairs", default="", help="these pairs alone, by a part of their names, comma-separated"
    )
    parser.add_argument(
        "--no-family", dest="family", action="store_false", help="leave the self-made pairs out"
    )
    parser.add_argument("--json", action="store_true", help="also write benches/out/size.json")
    arguments = parser.parse_args()
    results = run(arguments)
    results.show()
    if arguments.json:
        results.write()


if __name__ == "__main__":
    main()
