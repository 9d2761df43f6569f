"""Bits per weight of the codec beside its peers, every output decoded and compared.

Ours is coded tensor by tensor and counts every byte: headers, tables, frames. The peers may take all
tensors of a checkpoint as one array, and the smallest of their variants speaks for them. Encoding is timed
(the better of two, one core) only to tell which peers are fast enough to be practical.

    python benches/size.py [--json] [--skip bsdiff4,...]
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Sequence

import numpy as np

from measure import Bytes, Results, Verdict, buffer, copy_of, keep_freed_memory, machine, pin_to_one_core
from ours import Ours, instruction_set
from pairs import CHECKPOINTS, Pair, Tensor, join, load_checkpoints, load_pairs
from peers.peer import Peer, PeerFailedError, PeerUnavailableError
from peers.roster import Roster, delta_size, standalone_size

PRACTICAL_MB_S = 50
LIMITS = {"early": 0.25, "late_rl": 0.62, "dense": 0.86}
KINDS = {"early": "early steps", "late_rl": "later RL steps", "dense": "fine-tunes and pre-training"}


def coded(peer: Peer, target: Bytes, base: Bytes | None, out: Bytes, *, tries: int) -> tuple[int, float]:
    """Payload bytes and encode MB/s of one peer, after a round trip that must be exact."""
    seconds = []
    payload = peer.encode(target, base)
    for _ in range(tries):
        start = time.perf_counter()
        payload = peer.encode(target, base)
        seconds.append(time.perf_counter() - start)
    out.fill(0xA5)
    if not np.array_equal(peer.decode(payload, base, out), target):
        raise PeerFailedError(f"{peer.name} gave back other bytes")
    return payload.size, target.size / min(seconds) / 1e6


def smallest(variants: Sequence[Peer], target: Bytes, base: Bytes | None, out: Bytes) -> tuple[float, float]:
    """Bits per weight and MB/s of the smallest variant. A slow peer is run once."""
    tries = 1 if variants[0].name == "bsdiff4" else 2
    found = [coded(variant, target, base, out, tries=tries) for variant in variants]
    size, speed = min(found, key=lambda item: item[0])
    return 8 * size / (target.size // 2), speed


def ours_bits(targets: Sequence[Tensor], bases: Sequence[Tensor | None]) -> float:
    """Our bits per weight, each tensor coded by itself and decoded again."""
    size = weights = 0
    peers: dict[str, Ours] = {}
    for target, base in zip(targets, bases, strict=True):
        peer = peers.setdefault(target.dtype, Ours(dtype=target.dtype))
        out = buffer(target.data.size)
        size += coded(peer, target.data, None if base is None else base.data, out, tries=1)[0]
        weights += target.data.size // 2
    return 8 * size / weights


def delta_table(results: Results, pairs: Sequence[Pair], roster: Roster) -> dict[str, dict[str, float]]:
    """Adds the table of pairs; returns, by pair, ours, the limit and the ratio to the best practical peer."""
    found: dict[str, dict[str, float]] = {}
    rows: list[list[object]] = []
    speeds: list[list[object]] = []
    for pair in pairs:
        target, base = (copy_of(side) for side in pair.joined())
        out = buffer(target.size)
        measured = {name: smallest(variants, target, base, out) for name, variants in roster.items()}
        practical = {name: bits for name, (bits, speed) in measured.items() if speed >= PRACTICAL_MB_S}
        best = min(practical, key=practical.__getitem__) if practical else None
        facts = {}
        try:
            facts["ours"] = ours_bits(pair.target, pair.base)
        except PeerUnavailableError as error:
            results.paragraphs += [] if str(error) in results.paragraphs else [str(error)]
        if pair.limit_bits is not None:
            facts["limit"] = pair.limit_bits
        if best is not None and "ours" in facts:
            facts["ratio"] = facts["ours"] / practical[best]
        found[pair.name] = facts
        row: list[object] = [pair.name, facts.get("ours"), facts.get("limit")]
        row += [bits for bits, _ in measured.values()]
        rows.append([*row, best, facts.get("ratio")])
        speeds.append([pair.name, *(speed for _, speed in measured.values())])
    note = f"Best peer: the smallest of those that encode at {PRACTICAL_MB_S} MB/s or more in this run."
    columns = ["pair", "ours", "limit", *roster, "best peer", "ours / best"]
    results.add_table("Deltas, bits per weight (16 = raw)", columns, rows, note=note)
    results.add_table(
        "Encode speed of these peers, MB/s (one try, for the choice above)", ["pair", *roster], speeds
    )
    return found


def standalone_table(results: Results, roster: Roster) -> dict[str, dict[str, float]]:
    """Adds the table of checkpoints coded without a base; returns bits by checkpoint and contender."""
    found: dict[str, dict[str, float]] = {}
    for name, tensors in load_checkpoints().items():
        target = copy_of(join(tensors))
        out = buffer(target.size)
        bits = {peer: smallest(variants, target, None, out)[0] for peer, variants in roster.items()}
        with contextlib.suppress(PeerUnavailableError):  # said once, by the table of pairs
            bits["ours"] = ours_bits(tensors, [None] * len(tensors))
        found[name] = bits
    rows = [[name, bits.get("ours"), *(bits[peer] for peer in roster)] for name, bits in found.items()]
    results.add_table("Standalone bf16, bits per weight (16 = raw)", ["checkpoint", "ours", *roster], rows)
    return found


def worst_of(
    criterion: str, values: dict[str, float], limits: dict[str, float], show: Callable[[float], str]
) -> Verdict:
    """Passes if no value is above its limit; says which one comes nearest or goes farthest over."""
    if not values:
        return Verdict(criterion, None, "–", "not measured here")
    over = ", ".join(f"{n} {show(v)} > {show(limits[n])}" for n, v in values.items() if v > limits[n])
    worst = max(values, key=lambda name: values[name] / limits[name])
    return Verdict(
        criterion,
        not over,
        f"nearest to the limit: {worst} {show(values[worst])} of {show(limits[worst])}",
        f"over: {over}" if over else "",
    )


def judge(
    pairs: Sequence[Pair], deltas: dict[str, dict[str, float]], alone: dict[str, dict[str, float]]
) -> list[Verdict]:
    """The acceptance criteria on size. Self-made pairs are not judged against limits of real ones."""
    real = [pair for pair in pairs if pair.real]
    judged = [pair for pair in real if "limit" in deltas[pair.name] and "ours" in deltas[pair.name]]
    verdicts = [
        worst_of(
            "no pair above the prototype's bytes",
            # The limits are known to three decimals: what rounds to the limit is at it.
            {pair.name: round(deltas[pair.name]["ours"], 3) for pair in judged},
            {pair.name: deltas[pair.name]["limit"] for pair in judged},
            lambda bits: f"{bits:.3f}",
        )
    ]
    for kind, limit in LIMITS.items():
        ratios = {
            p.name: deltas[p.name]["ratio"] for p in real if p.kind == kind and "ratio" in deltas[p.name]
        }
        criterion = f"{KINDS[kind]} at most {limit}x the best practical peer"
        verdicts.append(
            worst_of(criterion, ratios, dict.fromkeys(ratios, limit), lambda ratio: f"{ratio:.3f}x")
        )
    for rival in ("zipnn", "openzl Huffman", "openzl FSE"):
        both = {name: bits for name, bits in alone.items() if "ours" in bits and rival in bits}
        verdicts.append(
            worst_of(
                f"standalone bf16 at or under {rival}",
                {name: bits["ours"] for name, bits in both.items()},
                {name: bits[rival] for name, bits in both.items()},
                lambda bits: f"{bits:.4f}",
            )
        )
    return verdicts


def run(skip: Sequence[str]) -> Results:
    packages = ["zstandard", "zipnn", "openzl", "pcodec", "bsdiff4", "textnlp-fast"]
    results = Results("size", machine(packages) | {"kernels": instruction_set()})
    pin_to_one_core()
    keep_freed_memory()
    pairs = load_pairs()
    deltas = {name: peers for name, peers in delta_size(results.paragraphs).items() if name not in skip}
    alone = {name: peers for name, peers in standalone_size(results.paragraphs).items() if name not in skip}
    results.settings = {
        "data": "real checkpoints"
        if CHECKPOINTS.is_dir()
        else "self-made pairs: limits are not judged on them",
        "peers_take": "all tensors of a checkpoint at once",
        "ours_takes": "one tensor at a time",
    }
    found = delta_table(results, pairs, deltas)
    results.verdicts = judge(pairs, found, standalone_table(results, alone))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--skip", default="", help="peers to leave out, comma-separated")
    parser.add_argument("--json", action="store_true", help="also write benches/out/size.json")
    arguments = parser.parse_args()
    results = run(arguments.skip.split(","))
    results.show()
    if arguments.json:
        results.write()


if __name__ == "__main__":
    main()
