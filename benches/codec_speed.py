"""Speed of the codec on one core, beside its peers, in one run.

Each pair (about 3 MB a side) is laid out in memory ``--copies`` times, every copy in pages of its own and
coded by a call of its own, so that all stream from memory and not from the last-level cache, and no peer
finds one copy inside another. GB/s are bytes of bf16 weights per second of wall time on one pinned core.

    python benches/codec_speed.py                               all of it
    python benches/codec_speed.py --only bitx --pairs rl_0001   what one tunes against
    python benches/codec_speed.py --only zipnn --pairs none     coding without a base alone
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from criteria import speed_verdicts
from measure import (
    Bytes,
    Results,
    Timing,
    allowed_cores,
    buffer,
    copy_of,
    keep_freed_memory,
    machine,
    paired_ratio,
    pin_to_one_core,
    race,
)
from ours import Ours, instruction_set
from pairs import CHECKPOINTS, join, load_checkpoints, load_pairs
from peers.native import address, kernels, size
from peers.peer import Peer, PeerFailedError, PeerUnavailableError
from peers.roster import Roster, delta_speed, standalone_speed
from threads import add_scaling

OURS, MEMCPY = "ours", "memcpy"
# Passes over the same memory that nobody can do without: what is quicker than these does not look at the weights.
COMPARING, EXPONENTS = "comparing pass", "exponents pass"
BESIDES = (MEMCPY, COMPARING, EXPONENTS)
SPARSE_RIVAL = "gaps+values zstd-1"
STANDALONE_SETS = ("base", "sft_0100", "pre_0600")


@dataclass
class Scene:
    """One data set, laid out several times in touched memory. ``outputs`` is where decoders write."""

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

    def restore_bases(self) -> None:
        """Put the bases back into ``outputs``, ahead of a decode in place."""
        for out, base in zip(self.outputs, self.bases or [], strict=True):
            out[:] = base


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


def copier(scene: Scene) -> Callable[[], None]:
    """memcpy over the same memory: what a decoder that had nothing to think about would take."""

    def run() -> None:
        for target, out in zip(scene.targets, scene.outputs, strict=True):
            ctypes.memmove(out.ctypes.data, target.ctypes.data, target.size)

    return run


def comparing(scene: Scene) -> Callable[[], None]:
    """Reads target and base once and compares them: the least that an encoder must do."""

    def run() -> None:
        for target, base in zip(scene.targets, scene.bases or [], strict=True):
            kernels().pass_compare(address(target), address(base), size(target.size // 2))

    return run


def exponents(scene: Scene) -> Callable[[], None]:
    """Reads the base once: the least that a decoder must do which looks at each exponent."""

    def run() -> None:
        for base in scene.outputs:
            kernels().pass_exponents(address(base), size(base.size // 2))

    return run


def kept(payload: Bytes) -> Bytes:
    """A payload that outlives the next encode; one that a library allocated for us stays as it is."""
    return payload if isinstance(payload.base, bytes) else copy_of(payload)


def encode_checked(peer: Peer, scene: Scene) -> list[Bytes]:
    """The payload of every copy, each decoded once and compared with what went in."""
    payloads = []
    for number, target in enumerate(scene.targets):
        payload = kept(peer.encode(target, scene.base(number)))
        out = scene.outputs[number]
        out.fill(0xA5)
        if not np.array_equal(peer.decode(payload, scene.base(number), out), target):
            raise PeerFailedError(f"{peer.name} gave back other bytes on {scene.name}")
        payloads.append(payload)
    return payloads


def fastest(variants: Sequence[Peer], scene: Scene) -> tuple[Peer, Peer]:
    """The variant of one peer that encodes fastest on this data and the one that decodes fastest.

    They may differ: where that favours the peer over any one layout it could really have, so be it.
    """
    if len(variants) == 1:
        return variants[0], variants[0]
    target, base, out = scene.targets[0], scene.base(0), scene.outputs[0]
    encoders: dict[str, Callable[[], object]] = {}
    decoders: dict[str, Callable[[], object]] = {}
    for number, variant in enumerate(variants):
        payload = kept(variant.encode(target, base))
        encoders[str(number)] = partial(variant.encode, target, base)
        decoders[str(number)] = partial(variant.decode, payload, base, out)
    best = [
        min(timings.values(), key=lambda timing: timing.best)
        for timings in (
            race(encoders, rounds=4, clock=time.process_time),
            race(decoders, rounds=7, clock=time.process_time),
        )
    ]
    return variants[int(best[0].name)], variants[int(best[1].name)]


@dataclass
class Contest:
    """What one scene gave: timings of each contender by direction, payload sizes, and the variants chosen."""

    scene_name: str
    size_bytes: int
    has_base: bool
    encode: dict[str, Timing]
    decode: dict[str, Timing]
    in_place: dict[str, Timing]
    bits: dict[str, float]
    variants: dict[str, str]

    def timings(self, direction: str) -> dict[str, Timing]:
        return {"encode": self.encode, "decode": self.decode, "in_place": self.in_place}[direction]


def compete(scene: Scene, contenders: Roster, rounds: int, clock: Callable[[], float]) -> Contest:
    encoders, decoders, in_place = ({MEMCPY: copier(scene)} for _ in range(3))
    if scene.bases is not None:
        encoders[COMPARING] = comparing(scene)
        in_place[EXPONENTS] = exponents(scene)
    bits: dict[str, float] = {}
    chosen: dict[str, str] = {}
    for name, variants in contenders.items():
        fast_encode, fast_decode = fastest(variants, scene)
        payloads = encode_checked(fast_decode, scene)
        chosen[name] = fast_encode.variant
        if fast_encode is not fast_decode:
            encode_checked(fast_encode, scene)
            chosen[name] += f"; to decode: {fast_decode.variant}"
        encoders[name] = encoder(fast_encode, scene)
        decoders[name] = decoder(fast_decode, scene, payloads)
        if fast_decode.in_place and scene.bases is not None:
            in_place[name] = in_place_decoder(fast_decode, scene, payloads)
        bits[name] = 16 * sum(payload.size for payload in payloads) / scene.size_bytes
    return Contest(
        scene.name,
        scene.size_bytes,
        scene.bases is not None,
        race(encoders, rounds=rounds, clock=clock),
        race(decoders, rounds=rounds, clock=clock),
        race(in_place, rounds=rounds, clock=clock, before=scene.restore_bases) if scene.bases else {},
        bits,
        chosen,
    )


def speed_rows(contests: Sequence[Contest], direction: str, names: Sequence[str]) -> list[list[object]]:
    rows: list[list[object]] = []
    for contest in contests:
        timings = contest.timings(direction)
        row: list[object] = [contest.scene_name]
        row += [timings[n].gigabytes_per_second(contest.size_bytes) if n in timings else None for n in names]
        for name in names:
            if name != OURS and OURS in names:
                both = OURS in timings and name in timings
                row.append(paired_ratio(timings[OURS], timings[name]) if both else None)
        rows.append(row)
    return rows


def add_tables(results: Results, contests: Sequence[Contest], names: Sequence[str], what: str) -> None:
    titles = {
        "encode": f"{what}: encode, GB/s",
        "decode": f"{what}: decode, GB/s",
        "in_place": f"{what}: decode in place (the base becomes the target), GB/s",
    }
    for direction, title in titles.items():
        present = [name for name in names if any(name in c.timings(direction) for c in contests)]
        if present:
            ratios = [f"ours / {name}" for name in present if name != OURS and OURS in present]
            results.add_table(title, ["data", *present, *ratios], speed_rows(contests, direction, present))


def ratios(contests: Sequence[Contest], direction: str, rival: str) -> dict[str, float]:
    """How many times faster than ``rival`` ours is, by set."""
    return {
        contest.scene_name: paired_ratio(timings[OURS], timings[rival])
        for contest in contests
        if OURS in (timings := contest.timings(direction)) and rival in timings
    }


def roofline(contests: Sequence[Contest], what: str) -> str:
    """Where decoding stands against the memory traffic that it cannot avoid."""
    parts = []
    for contest in contests:
        if OURS in contest.decode:
            memcpy = contest.decode[MEMCPY].gigabytes_per_second(contest.size_bytes)
            ceiling = memcpy * 2 / (1 + contest.bits[OURS] / 16 + contest.has_base)
            speed = contest.decode[OURS].gigabytes_per_second(contest.size_bytes)
            share = 100 * speed / ceiling
            parts.append(f"{contest.scene_name} {speed:.2f} of {ceiling:.1f} GB/s ({share:.0f} %)")
    if not parts:
        return ""
    return (
        f"Roofline, {what}: memcpy, a contender in the same rounds over the same memory, reads one byte and "
        "writes one. Decoding reads the payload and, for a delta, the base, and writes the target; with "
        "memcpy's traffic it would run at this ceiling; the distance to it is the coder's arithmetic. "
        f"{'; '.join(parts)}."
    )


def bounds(contests: Sequence[Contest]) -> str:
    """How twice the speed of the sparse recipe, which we aimed at, lies to what memory allows."""
    parts = []
    for contest in contests:
        for direction, bound in (("encode", COMPARING), ("in_place", EXPONENTS)):
            timings = contest.timings(direction)
            if SPARSE_RIVAL in timings and bound in timings:
                twice = 2 * paired_ratio(timings[SPARSE_RIVAL], timings[bound])
                what = direction.replace("_", " ")
                parts.append(f"{contest.scene_name}, {what}: {twice:.2f} of the {bound}")
    if not parts:
        return ""
    return (
        "Bounds: the comparing pass reads both sides once, as any encoder must; the exponents pass reads the "
        "base once, as any decoder must that looks at each exponent. Above 1, twice the speed of "
        f"{SPARSE_RIVAL} is more than memory gives such a codec. {'; '.join(parts)}."
    )


def contenders(rivals: Roster, only: str, missing: list[str]) -> Roster:
    wanted = tuple(only.lower().split(",")) if only else ("",)
    chosen = {name: variants for name, variants in rivals.items() if name.lower().startswith(wanted)}
    try:
        return {OURS: [Ours()], **chosen}
    except PeerUnavailableError as error:
        if str(error) not in missing:
            missing.append(str(error))
        return chosen


def run(arguments: argparse.Namespace) -> Results:
    facts = machine(["zstandard", "zipnn", "openzl", "textnlp-fast"])
    results = Results("codec_speed", facts | {"kernels": instruction_set()})
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[arguments.clock]
    cores = allowed_cores()
    core = pin_to_one_core()
    keep_freed_memory()
    keys = arguments.pairs.split(",") if arguments.pairs else [""]
    deltas: list[Contest] = []
    missing: list[str] = []
    roster = contenders(delta_speed(missing), arguments.only, missing)
    for pair in load_pairs():
        if any(key in pair.name for key in keys) and set(roster) != {OURS}:
            scene = Scene.build(pair.name, *pair.joined(), arguments.copies)
            deltas.append(compete(scene, roster, arguments.rounds, clock))
    add_tables(results, deltas, [*roster, *BESIDES], "delta")
    singles: list[Contest] = []
    roster = contenders(standalone_speed(missing), arguments.only, missing)
    for name, tensors in load_checkpoints().items():
        if (name in STANDALONE_SETS or not CHECKPOINTS.is_dir()) and set(roster) != {OURS}:
            scene = Scene.build(name, join(tensors), None, arguments.copies)
            singles.append(compete(scene, roster, arguments.rounds, clock))
    add_tables(results, singles, [*roster, *BESIDES], "standalone")
    results.settings = {
        "core": core,
        "clock": arguments.clock,
        "copies": arguments.copies,
        "rounds": arguments.rounds,
        "bytes_per_pass": max((c.size_bytes for c in [*deltas, *singles]), default=0),
        "data": "real checkpoints" if CHECKPOINTS.is_dir() else "self-made pairs",
        "variants": {contest.scene_name: contest.variants for contest in [*deltas, *singles]},
    }
    results.paragraphs += missing
    contests = {"delta": deltas, "standalone": singles}
    results.paragraphs += filter(None, [roofline(found, what) for what, found in contests.items()])
    results.paragraphs += filter(None, [bounds(deltas)])
    # The limits are meant for trained weights of the first family.
    judged = contests if CHECKPOINTS.is_dir() else {"delta": [], "standalone": []}
    results.verdicts = speed_verdicts(lambda what, direction, rival: ratios(judged[what], direction, rival))
    if OURS in roster and arguments.thread_mb and not arguments.only:
        largest = arguments.thread_mb * 10**6
        pair = next((p for p in load_pairs() if p.kind == "late_tune"), load_pairs()[-1])
        add_scaling(results, pair, cores, size_bytes=largest, rounds=arguments.rounds)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="peers, by the start of their names, comma-separated")
    parser.add_argument("--pairs", default="", help="pairs, by a part of their names, comma-separated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--copies", type=int, default=16)
    parser.add_argument(
        "--thread-mb", type=int, default=128, help="tensor of the threads' table; 0: no table"
    )
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a machine that others keep busy"
    )
    parser.add_argument("--json", action="store_true", help="also write benches/out/codec_speed.json")
    arguments = parser.parse_args()
    results = run(arguments)
    results.show()
    if arguments.json:
        results.write()


if __name__ == "__main__":
    main()
