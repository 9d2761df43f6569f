"""What approximate patches cost and what they drop, beside the exact patch of the same pair.

Every tensor is quantised, coded against its base (or what the recipe makes of it), decoded, and the promise checked.
Bits count everything: frames, factors, signs, scales. ``floor`` is the entropy of the residuals that came out, under
a table for each exponent of the base: what a coder without raw bits, headers and tables would need.

    python benches/approximate.py [--json] [--pairs sft,...] [--ask max_ulp=2,top_k=0.01,...]
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from measure import Results, Verdict, machine, pin_to_one_core
from ours import instruction_set
from pairs import CHECKPOINTS, Pair, Tensor, load_pairs
from textnlp_fast.delta import codec
from textnlp_fast.delta.approximate import Approximation, MaxUlp, parse
from textnlp_fast.delta.change import Change
from textnlp_fast.delta.elements import ELEMENTS, Element, Words
from textnlp_fast.delta.factors import Factors, Signs, made
from textnlp_fast.delta.promise import Promise, TensorPromise, check
from textnlp_fast.delta.quantise import Quantiser
from textnlp_fast.tensors import SafetensorsFile

ASKED = (
    *("max_ulp=1", "max_ulp=2", "max_ulp=4", "max_ulp=8"),
    *("max_abs=1e-5", "max_abs=1e-4", "max_abs=1e-3"),
    *("top_k=0.1", "top_k=0.01", "top_k=0.001", "threshold=1e-4"),
    *("low_rank=4", "low_rank=16", "sign_scale", "sign_scale=row"),
)


@dataclass
class Sums:
    """One pair under one approximation; None for the exact patch."""

    asked: Approximation | None
    weights: int = 0
    bits: int = 0
    floor_bits: float = 0.0
    plain_bits: int | None = None
    cpu_s: float = 0.0
    promises: dict[str, TensorPromise] = field(default_factory=dict)

    @property
    def bits_each(self) -> float:
        return self.bits / self.weights


def shapes_of(pair: Pair) -> dict[str, tuple[int, ...]]:
    """Real shapes from the file's header; the self-made matrices have 512 columns."""
    if pair.real:
        file = SafetensorsFile.open(CHECKPOINTS / f"{pair.name.split(' -> ')[1]}.safetensors")
        return {tensor.name: tensor.shape for tensor in file.tensors}
    counts = {tensor.name: tensor.data.size // 2 for tensor in pair.target}
    return {name: (count,) if count == 512 else (count // 512, 512) for name, count in counts.items()}


def coded_bits(target: Words, base: Words | None, dtype: str) -> int:
    """Size of the frames, after a round trip that must be exact."""
    before = None if base is None else base.view(np.uint8)
    payload = codec.encode(target.view(np.uint8), before, dtype=dtype, threads=1)
    out = np.empty(target.nbytes, np.uint8)
    codec.decode_into(payload, out, before, threads=1)
    if not np.array_equal(out, target.view(np.uint8)):
        raise SystemExit("the codec gave back other bytes")
    return 8 * len(payload)


def bits_of_parts(parts: Factors | Signs) -> int:
    """What a patch has to carry for the recipe, each part coded on its own."""
    if isinstance(parts, Factors):
        return sum(coded_bits(np.frombuffer(factor, np.uint16), None, "F16") for factor in (parts.a, parts.b))
    signs = np.frombuffer(parts.signs, np.uint8)
    return coded_bits(signs, None, "OPAQUE") + coded_bits(parts.scales.view(np.uint32), None, "F32")


def entropy(target: Words, base: Words, dtype: str) -> float:
    """Bits of the residuals under one ideal table for each exponent of the base."""
    element = ELEMENTS[dtype]
    residual = element.ordered(target).astype(np.int64) - element.ordered(base)
    context = element.exponents(base).astype(np.int64)
    joint = np.unique((context << 40) + residual, return_counts=True)[1]
    alone = np.unique(context, return_counts=True)[1]
    return float((alone * np.log2(alone)).sum() - (joint * np.log2(joint)).sum())


def plainly(element: Element, change: Change, steps: int) -> Words:
    """The base where the bound allows it, the exact target elsewhere."""
    target, base = change.read(0, change.elements)
    apart = element.ordered(target).astype(np.int64) - element.ordered(base)
    return np.where(abs(apart) <= steps, base, target)


def measure(sums: Sums, target: Tensor, base: Tensor, shape: tuple[int, ...]) -> None:
    """Adds one tensor."""
    element = ELEMENTS[target.dtype]
    before = base.data.view(element.word)
    sums.weights += before.size
    if sums.asked is None:
        sums.bits += coded_bits(target.data.view(element.word), before, target.dtype)
        sums.floor_bits += entropy(target.data.view(element.word), before, target.dtype)
        return
    start = time.process_time()
    change = Change.of(target.data, base.data, dtype=target.dtype, shape=shape, name=target.name)
    quantiser = Quantiser(sums.asked, change)
    sent = np.concatenate(list(quantiser.blocks()))
    sums.cpu_s += time.process_time() - start
    if quantiser.parts is not None:
        sums.bits += bits_of_parts(quantiser.parts)
        before = made(quantiser.parts, element, 0, before)
    sums.bits += coded_bits(sent, before, target.dtype)
    sums.floor_bits += entropy(sent, before, target.dtype)
    if isinstance(sums.asked, MaxUlp):
        plain = plainly(element, change, sums.asked.steps)
        sums.plain_bits = (sums.plain_bits or 0) + coded_bits(plain, before, target.dtype)
    promise = quantiser.promise()
    sums.promises[target.name] = promise
    check(Promise({target.name: promise}), {target.name: target.data}, {target.name: sent})


def measured(pair: Pair, asked: Approximation | None) -> Sums:
    sums = Sums(asked)
    shapes = shapes_of(pair)
    for target, base in zip(pair.target, pair.base, strict=True):
        measure(sums, target, base, shapes[target.name])
    return sums


def judge(found: dict[str, list[Sums]]) -> list[Verdict]:
    """Of the bounds in ULPs: each looser one is smaller, on every pair."""
    over = []
    worst = ("–", 0.0)
    for pair, rows in found.items():
        sizes = [row.bits_each for row in rows if row.asked is None or isinstance(row.asked, MaxUlp)]
        ratios = [looser / tighter for tighter, looser in itertools.pairwise(sizes)]
        over += [pair] if any(ratio >= 1 for ratio in ratios) else []
        worst = max(
            worst, (f"{pair} {max(ratios, default=0):.3f}x", max(ratios, default=0)), key=lambda item: item[1]
        )
    return [
        Verdict(
            "each doubling of max_ulp is smaller than the one before",
            not over,
            f"largest: {worst[0]}",
            ", ".join(over),
        )
    ]


def run(pairs: Sequence[Pair], asked: Sequence[str]) -> Results:
    results = Results("approximate", machine(["textnlp-fast", "numpy"]) | {"kernels": instruction_set()})
    results.settings = {"data": "real checkpoints" if all(pair.real for pair in pairs) else "self-made pairs"}
    pin_to_one_core()
    ways: list[Approximation | None] = [None, *(parse(text) for text in asked)]
    found = {pair.name: [measured(pair, way) for way in ways] for pair in pairs}
    names = ["exact" if way is None else str(way) for way in ways]

    def table(title: str, cell: str, note: str) -> None:
        rows = [
            [name, *(figure(found[pair][number], cell) for pair in found)]
            for number, name in enumerate(names)
        ]
        results.add_table(title, ["asked for", *found], rows, note=note)

    table("Approximate patches, bits per weight (16 = raw)", "bits", "Frames, factors, signs and scales.")
    table(
        "Floor, bits per weight",
        "floor",
        "Entropy of the residuals under a table for each exponent of the base.",
    )
    plain_note = "The base where the bound allows it, the exact target elsewhere."
    table("Without a ladder, bits per weight", "plain", plain_note)
    table(
        "Error: norm of what was dropped, of the whole change's",
        "error",
        "0: exact. 1: no nearer than the base.",
    )
    table("Largest error in value", "max_abs", "")
    table("Share of the weights that the patch changes", "kept", "")
    table("Quantising, MB of weights a second of processor time", "speed", "One core, numpy; one try.")
    results.verdicts = judge(found)
    return results


def figure(sums: Sums, cell: str) -> float | str | None:
    promise = Promise(sums.promises)
    if cell == "bits":
        return sums.bits_each
    if cell == "floor":
        return sums.floor_bits / sums.weights
    if cell == "plain":
        return None if sums.plain_bits is None else sums.plain_bits / sums.weights
    if sums.asked is None:
        return None
    if cell == "error":
        return promise.dropped_l2 / promise.change_l2 if promise.change_l2 else 0.0
    if cell == "max_abs":
        return f"{promise.max_abs:.1e}"
    if cell == "kept":
        return promise.kept / sums.weights
    return 2 * sums.weights / max(sums.cpu_s, math.ulp(1.0)) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", default="", help="parts of names, comma-separated; all pairs if not given")
    parser.add_argument("--ask", default=",".join(ASKED), help="approximations, comma-separated")
    parser.add_argument("--json", action="store_true", help="also write benches/out/approximate.json")
    arguments = parser.parse_args()
    wanted = arguments.pairs.split(",")
    pairs = [pair for pair in load_pairs() if any(part in pair.name for part in wanted)]
    if not pairs:
        parser.error(f"no pair's name holds {arguments.pairs}")
    results = run(pairs, arguments.ask.split(","))
    results.show()
    if arguments.json:
        results.write()


if __name__ == "__main__":
    main()
