"""Speed of the codec on one core, beside its peers, in one run.

Usage: python benches/codec_speed.py [--only bitx,gaps,zipnn] [--pairs rl_0001,...] [--rounds N] [--copies N] [--json]

Each pair (about 3 MB a side) is laid out in memory ``--copies`` times, every copy in pages of its own and coded by an
own call, so that all contenders stream from memory and not from the last-level cache, and no peer finds one copy
inside another. GB/s are bytes of bf16 weights per second of wall time on one pinned core, median of all rounds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from measure import (
    Bytes,
    Results,
    Timing,
    Verdict,
    buffer,
    copy_of,
    keep_freed_memory,
    machine,
    memcpy_gigabytes_per_second,
    paired_ratio,
    pin_to_one_core,
    race,
)
from ours import Ours
from pairs import Pair, join, load_checkpoints, load_pairs
from peers.native import PeerFailedError, PeerUnavailableError
from peers.peer import Peer
from peers.roster import delta_rivals, standalone_rivals

OURS = "ours"


@dataclass
class Scene:
    """One data set, laid out ``copies`` times in touched memory."""

    name: str
    targets: list[Bytes]
    bases: list[Bytes] | None
    outputs: list[Bytes]

    @classmethod
    def build(cls, name: str, target: Bytes, base: Bytes | None, copies: int) -> Scene:
        return cls(
            name,
            [copy_of(target) for _ in range(copies)],
            None if base is None else [copy_of(base) for _ in range(copies)],
            [buffer(target.size) for _ in range(copies)],
        )

    @property
    def size_bytes(self) -> int:
        return sum(target.size for target in self.targets)

    def base(self, number: int) -> Bytes | None:
        return None if self.bases is None else self.bases[number]


def encoder(peer: Peer, scene: Scene) -> Callable[[], None]:
    def run() -> None:
        for number, target in enumerate(scene.targets):
            peer.encode(target, scene.base(number))

    return run


def decoder(peer: Peer, scene: Scene, payloads: Sequence[Bytes]) -> Callable[[], None]:
    def run() -> None:
        for number, out in enumerate(scene.outputs):
            peer.decode(payloads[number], scene.base(number), out)

    return run


def in_place_decoder(peer: Peer, scene: Scene, payloads: Sequence[Bytes]) -> Callable[[], None]:
    def run() -> None:
        for number, out in enumerate(scene.outputs):
            peer.decode(payloads[number], out, out)

    return run


def encode_checked(peer: Peer, scene: Scene) -> list[Bytes]:
    """The payload of every copy, each decoded once and compared with what went in."""
    payloads = []
    for number, target in enumerate(scene.targets):
        payload = copy_of(peer.encode(target, scene.base(number)))
        out = scene.outputs[number]
        out.fill(0xA5)
        peer.decode(payload, scene.base(number), out)
        if not np.array_equal(out, target):
            raise PeerFailedError(f"{peer.name} gave back other bytes on {scene.name}")
        payloads.append(payload)
    return payloads


def fastest(variants: Sequence[Peer], scene: Scene) -> tuple[Peer, Peer]:
    """The variant of one peer that encodes fastest here and the one that decodes fastest; they may differ."""
    if len(variants) == 1:
        return variants[0], variants[0]
    target, base, out = scene.targets[0], scene.base(0), scene.outputs[0]
    payloads = [copy_of(variant.encode(target, base)) for variant in variants]
    names = [str(number) for number in range(len(variants))]
    encode = race(
        {n: lambda v=v: v.encode(target, base) for n, v in zip(names, variants, strict=True)}, rounds=5
    )
    decode = race(
        {
            n: lambda v=v, p=p: v.decode(p, base, out)
            for n, v, p in zip(names, variants, payloads, strict=True)
        },
        rounds=7,
    )
    best = [min(names, key=lambda n: timing[n].best) for timing in (encode, decode)]
    return variants[int(best[0])], variants[int(best[1])]


@dataclass
class Contest:
    """What one scene gave: timings of each contender by direction, and the payload sizes."""

    scene: Scene
    encode: dict[str, Timing]
    decode: dict[str, Timing]
    in_place: dict[str, Timing]
    bits: dict[str, float]
    variants: dict[str, str]


def compete(scene: Scene, rivals: dict[str, Sequence[Peer]], rounds: int) -> Contest:
    encoders: dict[str, Callable[[], None]] = {}
    decoders: dict[str, Callable[[], None]] = {}
    in_place: dict[str, Callable[[], None]] = {}
    bits: dict[str, float] = {}
    chosen: dict[str, str] = {}
    for name, variants in rivals.items():
        encode, decode = fastest(variants, scene)
        payloads = encode_checked(decode, scene)
        if encode is not decode:
            encode_checked(encode, scene)
        encoders[name], decoders[name] = encoder(encode, scene), decoder(decode, scene, payloads)
        if decode.in_place and scene.bases is not None:
            in_place[name] = in_place_decoder(decode, scene, payloads)
        bits[name] = 16 * sum(payload.size for payload in payloads) / scene.size_bytes
        chosen[name] = (
            f"{encode.variant}; decode {decode.variant}" if encode is not decode else encode.variant
        )

    def restore() -> None:
        for number, out in enumerate(scene.outputs):
            out[:] = scene.base(number)

    return Contest(
        scene,
        race(encoders, rounds=rounds),
        race(decoders, rounds=rounds),
        race(in_place, rounds=rounds, before=restore) if in_place else {},
        bits,
        chosen,
    )


def speed_rows(contests: Sequence[Contest], direction: str, names: Sequence[str]) -> list[list[object]]:
    rows: list[list[object]] = []
    for contest in contests:
        timings: dict[str, Timing] = getattr(contest, direction)
        row: list[object] = [contest.scene.name]
        for name in names:
            row.append(
                timings[name].gigabytes_per_second(contest.scene.size_bytes) if name in timings else None
            )
        for name in names:
            if name != OURS:
                both = OURS in timings and name in timings
                row.append(paired_ratio(timings[OURS], timings[name]) if both else None)
        rows.append(row)
    return rows


def add_tables(results: Results, contests: Sequence[Contest], names: Sequence[str], what: str) -> None:
    titles = {
        "encode": f"{what}: encode, GB/s",
        "decode": f"{what}: decode into another buffer, GB/s",
        "in_place": f"{what}: decode in place (the base becomes the target), GB/s",
    }
    for direction, title in titles.items():
        present = [name for name in names if any(name in getattr(contest, direction) for contest in contests)]
        if present:
            columns = ["data", *present, *(f"ours / {name}" for name in present if name != OURS)]
            results.add_table(title, columns, speed_rows(contests, direction, present))


def judge(
    results: Results, contests: Sequence[Contest], direction: str, rival: str, limit: float, what: str
) -> None:
    ratios = {
        contest.scene.name: paired_ratio(timings[OURS], timings[rival])
        for contest in contests
        if OURS in (timings := getattr(contest, direction)) and rival in timings
    }
    criterion = f"{what} {direction} at least {limit}x {rival} on every set"
    if not ratios:
        results.verdicts.append(Verdict(criterion, None, "–", "ours or the peer is missing here"))
        return
    worst = min(ratios, key=ratios.__getitem__)
    below = [f"{name} {ratio:.2f}x" for name, ratio in ratios.items() if ratio < limit]
    results.verdicts.append(
        Verdict(
            criterion,
            not below,
            f"worst {ratios[worst]:.2f}x on {worst}",
            "below: " + ", ".join(below) if below else "",
        )
    )


def roofline(contests: Sequence[Contest], memcpy: float, what: str) -> str:
    """Where decoding stands against the memory it must move."""
    parts = []
    for contest in contests:
        if OURS not in contest.decode:
            continue
        coded = contest.bits[OURS] / 16
        inputs = coded + (1 if contest.scene.bases is not None else 0)
        ceiling = memcpy * 2 / (1 + inputs)
        speed = contest.decode[OURS].gigabytes_per_second(contest.scene.size_bytes)
        parts.append(
            f"{contest.scene.name} {speed:.2f} of {ceiling:.1f} GB/s ({100 * speed / ceiling:.0f} %)"
        )
    if not parts:
        return ""
    return (
        f"Roofline, {what}: memcpy moves {memcpy:.1f} GB/s on this core in this run, one byte read and one written per "
        "byte. Decoding reads the payload and, for a delta, the base, and writes the target; at memcpy's traffic that "
        "would give the ceiling below. The distance to it is the coder's arithmetic. "
        + "; ".join(parts)
        + "."
    )


def in_seconds(run: argparse.Namespace) -> Results:
    results = Results("codec_speed", machine(["zstandard", "zipnn", "openzl", "textnlp-fast"]))
    core = pin_to_one_core()
    keep_freed_memory()
    memcpy = [memcpy_gigabytes_per_second()]
    wanted = set(run.only.split(",")) if run.only else None
    pairs = [
        pair
        for pair in load_pairs()
        if not run.pairs or any(key in pair.name for key in run.pairs.split(","))
    ]

    def roster(rivals: dict[str, Sequence[Peer]]) -> dict[str, Sequence[Peer]]:
        kept = {
            n: v for n, v in rivals.items() if wanted is None or any(n.lower().startswith(w) for w in wanted)
        }
        try:
            return {OURS: [Ours()], **kept}
        except PeerUnavailableError as error:
            if str(error) not in results.paragraphs:
                results.paragraphs.append(str(error))
            return kept

    rivals = roster(delta_rivals(results.paragraphs))
    deltas = [compete(_delta_scene(pair, run.copies), rivals, run.rounds) for pair in pairs]
    add_tables(results, deltas, list(rivals), "delta")
    singles: list[Contest] = []
    alone = roster(standalone_rivals(results.paragraphs))
    if run.standalone and len(alone) > (OURS in alone):
        for name, tensors in load_checkpoints().items():
            if name in ("base", "sft_0100", "pre_0600") or not pairs[0].real:
                scene = Scene.build(name, join(tensors), None, run.copies)
                singles.append(compete(scene, alone, run.rounds))
        add_tables(results, singles, list(alone), "standalone")
    memcpy.append(memcpy_gigabytes_per_second())
    results.settings = {
        "core": core,
        "copies": run.copies,
        "rounds": run.rounds,
        "bytes_per_pass": deltas[0].scene.size_bytes if deltas else 0,
        "memcpy_gb_s": statistics.median(memcpy),
        "data": "real checkpoints" if pairs and pairs[0].real else "self-made pairs",
        "variants": {contest.scene.name: contest.variants for contest in [*deltas, *singles]},
    }
    judge(results, deltas, "decode", "BitX", 1.3, "delta")
    judge(results, deltas, "encode", "BitX", 1.3, "delta")
    if singles:
        judge(results, singles, "decode", "zipnn", 0.9, "standalone")
        judge(results, singles, "encode", "zipnn", 1.3, "standalone")
    for contests, what in ((deltas, "delta"), (singles, "standalone")):
        text = roofline(contests, statistics.median(memcpy), what)
        if text:
            results.paragraphs.append(text)
    return results


def _delta_scene(pair: Pair, copies: int) -> Scene:
    target, base = pair.joined()
    return Scene.build(pair.name, target, base, copies)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="peers to run, by the start of their names, comma-separated"
    )
    parser.add_argument("--pairs", default="", help="pairs to run, by a part of their names, comma-separated")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--copies", type=int, default=16)
    parser.add_argument("--no-standalone", dest="standalone", action="store_false")
    parser.add_argument("--json", action="store_true", help="also write benches/out/codec_speed.json")
    run = parser.parse_args()
    results = in_seconds(run)
    results.show()
    if run.json:
        results.write()


if __name__ == "__main__":
    main()
