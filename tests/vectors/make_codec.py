"""Writes the codec's golden vectors, tests/vectors/codec: what every build must read and write.

    python tests/vectors/make_codec.py [--force]

They pin the format and only grow: a frame that was ever written must decode for ever. Regenerated (--force) they
keep what the encoder wrote once and writes otherwise now, as `once-...`. `index.json` lists them; `vectors.bin`
holds the parts, each compressed with zlib. A vector with "encode" true is what the core's encoder makes of
its inputs; the others were written by tests/reference, with choices that the encoder never makes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from codec.inputs import BASES, DTYPES, INTEGER_BYTES, forced, late_step, modes, pair, stepped
from reference import codec as reference
from reference import codec_writer as writer
from reference.codec import AS_STEPS, BY_BITS, IN_LANES, PAIRED, STEP_TYPES
from reference.codec_elements import TYPES, Scheme
from reference.codec_sparse_writer import SparseForm, encode_sparse
from reference.codec_writer import DeltaForm, EvenForm, PlaneForm, TableForm
from textnlp_fast import _native
from textnlp_fast.delta import codec

FOLDER = Path(__file__).resolve().parent / "codec"


@dataclass(frozen=True, slots=True)
class Vector:
    """``frame_size`` is None for what only a decoder is to see."""

    name: str
    dtype: str
    target: bytes
    base: bytes | None
    frame_size: int | None
    payload: bytes = b""


def coded(name: str, dtype: str, target: bytes, base: bytes | None, frame_size: int = 1 << 20) -> Vector:
    return Vector(name, dtype, target, base, frame_size)


def of_every_dtype() -> Iterator[Vector]:
    for dtype in DTYPES:
        size = TYPES[dtype].size
        count = {1: 1111, 2: 1001, 4: 555, 8: 301}[size]
        for change in ("sparse", "rare", "dense", "wide"):
            yield coded(f"{dtype}-{change}", dtype, *pair(dtype, count, 1, "weights", change))
        target, _ = pair(dtype, count, 1, "weights", "same")
        yield coded(f"{dtype}-alone", dtype, target, None)
        yield coded(f"{dtype}-mostly-zero", dtype, pair(dtype, count, 2, "zeros", "sparse")[0], None)
        yield coded(f"{dtype}-specials", dtype, *pair(dtype, 320 // size + 3, 4, "specials", "dense"))


def of_every_shape() -> Iterator[Vector]:
    yield coded("empty", "BF16", b"", None)
    yield coded("one-element", "F32", *pair("F32", 1, 1, "noise", "other"))
    yield coded("same", "BF16", *pair("BF16", 500, 2, "weights", "same"))
    yield coded("raw", "F16", pair("F16", 300, 3, "noise", "same")[0], None)
    yield coded("zeros", "F64", bytes(8 * 1000), None)
    yield coded("no-longer-zero", "BF16", *pair("BF16", 700, 5, "zeros", "sparse"))
    for frame_size in (64, 512, 2048):
        target, base = pair("BF16", 1500, 7, "weights", "half_same")
        yield coded(f"frames-of-{frame_size}", "BF16", target, base, frame_size)
    yield coded("ends-changed", "BF16", *pair("BF16", 2049, 8, "weights", "ends_changed"), 1024)


def of_several_segments() -> Iterator[Vector]:
    """Long, and made by a rule, so that their inputs stay small here."""
    for dtype, count in (("BF16", 3 * 65536 + 50), ("U8", 2 * 65536), ("F32", 2 * 65536 + 1)):
        unsigned = BASES["zeros"](np.random.default_rng(0), 1, TYPES[dtype]).dtype
        index = np.arange(count, dtype=np.int64)
        base = (index % 61 << 6).astype(unsigned)
        target = (base + np.where(index % 4 == 1, index // 4 % 5 - 2, 0)).astype(unsigned)
        yield coded(f"{dtype}-segments-sparse", dtype, target.tobytes(), base.tobytes())
        target = (base + np.where(index % 4 != 1, index // 4 % 5 - 2, 0)).astype(unsigned)
        yield coded(f"{dtype}-segments-delta", dtype, target.tobytes(), base.tobytes())
        plain = np.where(index % 31 == 0, index % 13, 0).astype(unsigned)
        yield coded(f"{dtype}-segments-alone", dtype, plain.tobytes(), None)


def of_nibbles() -> Iterator[Vector]:
    """Two numbers to a byte, each of which moves by itself, again by a rule; eight to a word too."""
    index = np.arange(20_000)
    base = (index % 61 + 16 * (index % 11)).astype(np.uint8)
    lower, upper = index % 7 // 2 - 1, index % 5 - 2
    target = (base + lower * (index % 3 == 0) + 16 * upper * (index % 4 == 0)).astype(np.uint8)
    for dtype in (*INTEGER_BYTES, "I32"):
        yield coded(f"{dtype}-nibbles", dtype, target.tobytes(), base.tobytes())


def of_steps() -> Iterator[Vector]:
    for dtype, size in (("BF16", 1e-3), ("F16", 1e-4), ("F32", 1e-5)):
        _, base = pair(dtype, 2013, 9, "weights", "same")
        target = stepped(dtype, base, size, 9, stay=0.01, odd=0.002, still=0.2)
        yield coded(f"{dtype}-step", dtype, target, base)


def foreign_sparse() -> Iterator[Vector]:
    """Of every coder and type, with splits, hazards and tables of every kind, and more told than is needed."""
    for number, dtype in enumerate(DTYPES):
        element = TYPES[dtype]
        first = {5: 0, 8: 100, 11: 1000}.get(element.exponent, 0)
        even = EvenForm(frozenset(range(number % 2, 32, 2)), number % 4, number % 3)
        coding = DeltaForm(8 + number % 8, Scheme(3, 1), first, 32 - number % 5, 1, frozenset({7}), even=even)
        hazards = (1, 23, 7 + number, 12, 20)
        count = {1: 1613, 2: 1113, 4: 777, 8: 567}[element.size]
        change = "some_blocks" if element.size <= 2 else "dense"
        target, base = pair(dtype, count, 30 + number, "weights", change)
        for coder, listed, name in ((PAIRED, 10 if first else 0, "pair"), (IN_LANES, 18, "lanes")):
            form = SparseForm(coder, coding, listed, hazards, idle=40 + number, awake=number % 3 == 0)
            if coder == IN_LANES:
                form = replace(form, coding=replace(coding, segments=1 + number % 3))
            payload = encode_sparse(dtype, target, base, form)
            yield Vector(f"foreign-sparse-{name}-{dtype}", dtype, target, base, None, payload)
        payload = writer.encode_delta(dtype, target, base, coding)
        yield Vector(f"foreign-delta-even-{dtype}", dtype, target, base, None, payload)
    for dtype in STEP_TYPES:
        kinds = (("weights", 2.0**-10), ("specials", 2.0**-24), ("specials", 2.0**15))
        for number, (base_kind, size) in enumerate(kinds):
            _, base = pair(dtype, 1113, 40, base_kind, "same")
            target = stepped(dtype, base, size, 41, stay=0.05, odd=0.02, still=0.3)
            coding = DeltaForm(context_base=(1 << TYPES[dtype].exponent) - 32, contexts=32)
            form = SparseForm(AS_STEPS, coding, 1, (22, 18), step=size, idle=60)
            payload = encode_sparse(dtype, target, base, form)
            yield Vector(f"foreign-step-{number}-{dtype}", dtype, target, base, None, payload)


def of_late_steps() -> Iterator[Vector]:
    """Updates far below the spacing of most weights: few move, by a step or two, and signs go either way."""
    for count in (150, 4000, 30_011):
        yield coded(f"BF16-late-step-{count}", "BF16", *late_step(count))


def foreign_learned() -> Iterator[Vector]:
    """Of every type, with splits, hazards and buckets of every kind, signs in the states and behind the pair."""
    schemes = (Scheme(0, 0), Scheme(3, 1), Scheme(16, 2), Scheme(1, 3), Scheme(63, 3))
    for number, dtype in enumerate(DTYPES):
        element = TYPES[dtype]
        first = {5: 0, 8: 100, 11: 1000}.get(element.exponent, 0)
        scheme = schemes[number % 5] if element.size <= 2 or number % 5 < 2 else Scheme(2, 0)
        coding = DeltaForm(scheme=scheme, context_base=first, contexts=32 - number % 5)
        count = {1: 1613, 2: 1113, 4: 777, 8: 567}[element.size]
        change = "some_blocks" if element.size <= 2 else "dense"
        target, base = pair(dtype, count, 85 + number, "weights", change)
        listed = 12 + number % 7 if first else number % 2
        form = SparseForm(
            BY_BITS,
            coding,
            listed,
            (1, 23, 7 + number, 12),
            awake=number % 3 == 0,
            held=62 - 9 * (number % 4),
        )
        payload = encode_sparse(dtype, target, base, form)
        yield Vector(f"foreign-learned-{dtype}", dtype, target, base, None, payload)


def written_once(vectors: list[Vector]) -> Iterator[Vector]:
    """What the encoder wrote and writes otherwise now."""
    if not (FOLDER / "index.json").exists():
        return
    blob = (FOLDER / "vectors.bin").read_bytes()

    def part(place: list[int]) -> bytes:
        return zlib.decompress(blob[place[0] : place[0] + place[1]])

    now = {vector.name: vector.payload for vector in vectors}
    for entry in json.loads((FOLDER / "index.json").read_text()):
        name, payload = entry["name"], part(entry["payload"])
        if name.startswith("once-"):
            pass
        elif entry["encode"] and now.get(name) != payload:
            name = f"once-{name}-{hashlib.sha256(payload).hexdigest()[:6]}"
        else:
            continue
        base = None if entry["base"] is None else part(entry["base"])
        yield Vector(name, entry["dtype"], part(entry["target"]), base, None, payload)


def foreign() -> Iterator[Vector]:
    """Valid, and not what the core's encoder would write."""
    forms = (
        ("BF16", DeltaForm(8, Scheme(0, 0), 100, 32, 16, frozenset({3, 4, 9}), TableForm(5, 1, 0))),
        ("BF16", DeltaForm(12, Scheme(3, 2), 104, 31, 4, frozenset(), TableForm(0, 2, 5), 1)),
        ("F16", DeltaForm(13, Scheme(1, 3), 0, 32, 3, frozenset({1}), TableForm(1, 0, 15))),
        ("I16", DeltaForm(10, Scheme(63, 3), 0, 1, 2, frozenset(), TableForm(2, 1, 2))),
        ("F8_E5M2", DeltaForm(14, Scheme(7, 1), 3, 9, 5, frozenset({2}), TableForm(1, 2, 6))),
        ("F32", DeltaForm(9, Scheme(5, 1), 110, 12, 4, frozenset({5, 6, 7}), TableForm(0, 1, 3), 2)),
        ("F64", DeltaForm(15, Scheme(2, 0), 1010, 15, 2, frozenset(), TableForm(0, 1, 9))),
    )
    for number, (dtype, form) in enumerate(forms):
        target, base = pair(dtype, 2513 if TYPES[dtype].size <= 2 else 1013, 20, "weights", "sparse")
        payload = writer.encode_delta(dtype, target, base, form)
        yield Vector(f"foreign-delta-{number}-{dtype}", dtype, target, base, None, payload)
    for number, (dtype, kinds, log, segments) in enumerate(
        (
            ("BF16", (2, 0), 8, 9),
            ("BF16", (2, 2), 11, 3),
            ("F32", (2, 0, 2, 0), 12, 2),
            ("U8", (2,), 9, 2),
            ("F8_E4M3", (2,), 13, 1),
        )
    ):
        table = TableForm(number + 1, number % 3, 3)
        target, _ = pair(dtype, 2513 if dtype != "F32" else 1013, 20, "weights", "same")
        plane_forms = [PlaneForm(kind, log, segments, table) for kind in kinds]
        payload = writer.encode_planes(dtype, target, plane_forms)
        yield Vector(f"foreign-planes-{number}-{dtype}", dtype, target, None, None, payload)
    for number, dtype in enumerate(INTEGER_BYTES):
        target, base = pair(dtype, 2513, 60 + number, "weights", "nibbles")
        form = PlaneForm(2, 12 - number, number + 1, TableForm(number, number % 3, 2))
        payload = writer.encode_difference(dtype, target, base, form)
        yield Vector(f"foreign-difference-{dtype}", dtype, target, base, None, payload)
    # A reader takes frames of different types, modes and sizes in one payload.
    target, base = pair("BF16", 900, 50, "weights", "sparse")
    parts = [
        writer.frame(reference.RAW, "U8", 300, target[:300]),
        codec.encode(target[300:1300], base[300:1300], dtype="BF16"),
        codec.encode(target[1300:], dtype="OPAQUE", frame_size_bytes=128),
    ]
    yield Vector("foreign-mixture", "BF16", target, base, None, b"".join(parts))


def finished(vector: Vector) -> Vector:
    """The vector with its payload, on which every instruction set and the reference agree."""
    payloads = {vector.payload} if vector.frame_size is None else set()
    for isa in _native.available_isas():
        with forced(isa):
            if vector.frame_size is not None:
                payloads.add(
                    codec.encode(
                        vector.target, vector.base, dtype=vector.dtype, frame_size_bytes=vector.frame_size
                    )
                )
    (payload,) = payloads
    if reference.decode(payload, len(vector.target), vector.base) != vector.target:
        raise ValueError(f"{vector.name}: the reference reads something else")
    return Vector(vector.name, vector.dtype, vector.target, vector.base, vector.frame_size, payload)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the codec's golden vectors.")
    parser.add_argument("--force", action="store_true", help="replace the vectors that are there")
    options = parser.parse_args()
    if (FOLDER / "index.json").exists() and not options.force:
        sys.stderr.write(f"{FOLDER} holds vectors already; they pin the format. --force replaces them.\n")
        return 1
    blob = bytearray()
    index = []

    places: dict[bytes, list[int]] = {}

    def placed(part: bytes) -> list[int]:
        if part not in places:
            packed = zlib.compress(part, 9)
            blob.extend(packed)
            places[part] = [len(blob) - len(packed), len(packed)]
        return places[part]

    made = (
        *of_every_dtype(),
        *of_every_shape(),
        *of_several_segments(),
        *of_nibbles(),
        *of_steps(),
        *of_late_steps(),
        *foreign(),
        *foreign_sparse(),
        *foreign_learned(),
    )
    vectors = [finished(vector) for vector in made]
    for vector in (*vectors, *map(finished, written_once(vectors))):
        index.append(
            {
                "name": vector.name,
                "dtype": vector.dtype,
                "encode": vector.frame_size is not None,
                "frame_size": vector.frame_size,
                "modes": sorted(set(modes(vector.payload))),
                "size": len(vector.target),
                "sha256": hashlib.sha256(vector.target).hexdigest(),
                "target": placed(vector.target),
                "base": None if vector.base is None else placed(vector.base),
                "payload": placed(vector.payload),
            }
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(entry) for entry in index)
    (FOLDER / "index.json").write_text(f"[\n{lines}\n]\n")
    (FOLDER / "vectors.bin").write_bytes(blob)
    sys.stdout.write(f"{len(index)} vectors, {len(blob)} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
