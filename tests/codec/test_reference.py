"""The core and the reference read each other's frames, and refuse the same ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amounts import SANITIZED, examples
from codec.inputs import BASES, DTYPES, ISAS, decoded, forced, pair, pairs
from reference import codec as reference
from reference import codec_streams as streams
from reference import codec_writer as writer
from reference.codec_elements import TYPES, Scheme
from reference.codec_writer import DeltaForm, PlaneForm, TableForm
from textnlp_fast.delta import codec

table_forms = st.builds(
    TableForm, implied=st.integers(0, 255), predictor=st.integers(0, 2), order=st.integers(0, 15)
)
delta_forms = st.builds(
    DeltaForm,
    table_log=st.integers(8, 15),
    scheme=st.builds(Scheme, direct=st.integers(0, 63), mantissa=st.integers(0, 3)),
    context_base=st.integers(0, 2047),
    contexts=st.integers(1, 32),
    segments=st.integers(1, 16),
    joined=st.frozensets(st.integers(1, 31)),
    table=table_forms,
    spare=st.sampled_from([0, 0, 0, 1, 7]),
)
plane_forms = st.builds(
    PlaneForm,
    kind=st.sampled_from([0, 1, 2, 2, 2]),
    table_log=st.integers(8, 12),
    segments=st.integers(1, 16),
    table=table_forms,
)


def check_on_every_isa(payload: bytes, target: bytes, base: bytes | None) -> None:
    assert SANITIZED or reference.decode(payload, len(target), base) == target
    for isa in ISAS:
        with forced(isa):
            assert decoded(payload, len(target), base) == target, isa
            if base is not None:
                held = bytearray(base)
                codec.decode_into(payload, held, held)
                assert bytes(held) == target, isa


@settings(max_examples=examples(120), deadline=None)
@given(
    case=pairs(counts=st.integers(0, 1500)),
    frame_size=st.sampled_from([64, 4096, 1 << 20]),
    alone=st.booleans(),
)
def test_reference_reads_the_core(case: tuple[str, bytes, bytes], frame_size: int, alone: bool) -> None:
    dtype, target, other = case
    base = None if alone else other
    payload = codec.encode(target, base, dtype=dtype, frame_size_bytes=frame_size)
    assert reference.decode(payload, len(target), base) == target


@settings(max_examples=examples(200), deadline=None)
@given(
    case=pairs(counts=st.one_of(st.integers(400, 2500), st.sampled_from([1023, 1024, 1025]))),
    form=delta_forms,
)
def test_core_reads_any_delta(case: tuple[str, bytes, bytes], form: DeltaForm) -> None:
    dtype, target, base = case
    assume(target)
    segments = allowed_segments(form.segments, len(target) // TYPES[dtype].size)
    field = form.context_base % (1 << TYPES[dtype].exponent)
    payload = delta_or_skip(dtype, target, base, replace(form, segments=segments, context_base=field))
    check_on_every_isa(payload, target, base)


def allowed_segments(wanted: int, count: int) -> int:
    """The most segments, up to ``wanted``, that leave none empty."""
    return next(n for n in range(wanted, 0, -1) if len(streams.segment_ranges(count, n)) == n)


def delta_or_skip(dtype: str, target: bytes, base: bytes, form: DeltaForm) -> bytes:
    try:
        payload = writer.encode_delta(dtype, target, base, form)
    except ValueError:
        assume(False)
    assume(fits(payload))
    return payload


def fits(payload: bytes) -> bool:
    """Readers refuse bodies larger than what they decode to, which an odd choice of form may well make."""
    try:
        reference.read_header(streams.Bytes(payload, 0, len(payload)))
    except streams.CorruptFrame:
        return False
    return True


@settings(max_examples=examples(120), deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    count=st.integers(600, 2500),
    seed=st.integers(0, 2**32 - 1),
    base_kind=st.sampled_from(["weights", "specials", "zeros", "constant"]),
    forms=st.lists(plane_forms, min_size=8, max_size=8),
)
def test_core_reads_any_planes(
    dtype: str, count: int, *, seed: int, base_kind: str, forms: list[PlaneForm]
) -> None:
    element = TYPES[dtype]
    target = BASES[base_kind](np.random.default_rng(seed), count, element).tobytes()
    forms = [replace(form, segments=allowed_segments(form.segments, count)) for form in forms]
    try:
        payload = writer.encode_planes(dtype, target, forms[: element.size])
    except ValueError:
        assume(False)
    assume(fits(payload))
    check_on_every_isa(payload, target, None)


@pytest.mark.parametrize("segments", range(1, 17))
@pytest.mark.parametrize("dtype", ["U8", "F8_E5M2", "BF16", "F32", "F64"])
def test_every_segment_count(dtype: str, segments: int) -> None:
    """Segments of unequal length, each with its own words: more of them than the core's encoder makes."""
    element = TYPES[dtype]
    count = 5013
    assert len(streams.segment_ranges(count, segments)) == segments
    target, base = pair(dtype, count, segments, "zeros" if element.size == 1 else "weights", "sparse")
    form = DeltaForm(segments=segments, contexts=min(32, 1 << element.exponent))
    payload = writer.encode_delta(dtype, target, base, form)
    check_on_every_isa(payload, target, base)
    forms = [PlaneForm(kind=2 if plane == 0 else 0, segments=segments) for plane in range(element.size)]
    check_on_every_isa(writer.encode_planes(dtype, target, forms), target, None)


def spread(dtype: str, count: int, seed: int, first: int, fields: int) -> tuple[bytes, bytes]:
    """Target and base whose fields run evenly over ``fields`` values and beyond; each moves differently."""
    element = TYPES[dtype]
    rng = np.random.default_rng(seed)
    place = element.bits - 1 - element.exponent
    top = (1 << element.exponent) - 1
    base, target = [], []
    for _ in range(count):
        field = min(max(first + int(rng.integers(-1, fields + 1)), 0), top)
        low = int(rng.integers(0, 1 << min(place, 62)))
        value = int(rng.integers(0, 2)) << (element.bits - 1) | field << place | low
        move = int(rng.integers(-1 - field % 5 * 2, 2 + field % 5 * 2)) if rng.random() < 0.5 else 0
        base.append(value)
        target.append(reference.moved(value, move, element))
    return streams.to_bytes(target, element.size), streams.to_bytes(base, element.size)


@pytest.mark.parametrize("table_log", range(8, 16))
@pytest.mark.parametrize("dtype", ["I8", "F8_E4M3", "F16", "BF16", "I32", "F32", "U64", "F64"])
def test_every_table_log(dtype: str, table_log: int) -> None:
    element = TYPES[dtype]
    field = 0 if element.exponent < 6 else (1 << (element.exponent - 1)) - 20
    table = TableForm(order=table_log - 6)
    for scheme, contexts in ((Scheme(0, 0), 1), (Scheme(3, 2), 16), (Scheme(12, 2), 17), (Scheme(40, 3), 32)):
        target, base = spread(dtype, 2000, table_log, field, contexts)
        form = DeltaForm(table_log, scheme, field, contexts, table=table)
        payload = writer.encode_delta(dtype, target, base, form)
        # Tables of the widest kind may outweigh single bytes.
        assert fits(payload) or element.size == 1
        if fits(payload):
            check_on_every_isa(payload, target, base)


@pytest.mark.parametrize("dtype", ["U16", "BF16", "F32", "U64", "F64"])
def test_raw_bits_of_every_width(dtype: str) -> None:
    """Every bucket of the widest schemes occurs, so that a lane takes 1 to 64 raw bits in one turn."""
    element = TYPES[dtype]
    powers = [sign << bit for bit in range(element.bits) for sign in (1, -1)]
    residuals = [power + off for power in powers for off in (-1, 0, 1)] * 8
    base = np.random.default_rng(1).bytes(len(residuals) * element.size)
    moved = (
        reference.moved(value, residual, element)
        for value, residual in zip(streams.elements(base, element.size), residuals, strict=True)
    )
    target = streams.to_bytes(moved, element.size)
    # The most leading bits whose tokens stay within 128.
    for mantissa in range({2: 3, 4: 2, 8: 1}[element.size]):
        form = DeltaForm(table_log=12, scheme=Scheme(0, mantissa))
        # Half the elements stay: noise alone would code to more than raw, which readers refuse.
        payload = writer.encode_delta(dtype, target + base, base + base, form)
        check_on_every_isa(payload, target + base, base + base)


def test_the_reference_refuses_what_the_format_forbids() -> None:
    """The oracle itself must not wave things through."""
    target, base = pair("BF16", 600, 1, "weights", "sparse")
    form = DeltaForm(context_base=100, contexts=20)
    payload = bytearray(writer.encode_delta("BF16", target, base, form))
    assert reference.decode(bytes(payload), len(target), base) == target
    payload[-1] ^= 1
    with pytest.raises(streams.CorruptFrame):
        reference.decode(bytes(payload), len(target), base)
    with pytest.raises(streams.MissingBase):
        reference.decode(writer.frame(reference.SAME, "BF16", 4), 4)
    with pytest.raises(streams.UnsupportedFrame):
        reference.decode(b"\x20\x09\x04", 4, b"1234")
