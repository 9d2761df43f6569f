"""Sparse and learned frames: any split, any hazards, each way to tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amounts import examples, nothing_of_the_core
from codec.inputs import (
    BASES,
    CHANGES,
    DTYPES,
    ISAS,
    UNSIGNED,
    coders,
    decoded,
    forced,
    late_step,
    modes,
    pair,
    stepped,
)
from codec.test_reference import check_on_every_isa, delta_forms, fits
from reference import codec_streams as streams
from reference.codec import AS_STEPS, BY_BITS, IN_LANES, PAIRED, STEP_TYPES
from reference.codec_elements import TYPES, Scheme, context_field
from reference.codec_learned import MOST_ELEMENTS, SIGNS_IN_A_STATE
from reference.codec_sparse import BLOCK, read_pair, read_places
from reference.codec_sparse_writer import PairWriter, SparseForm, encode_sparse, write_places
from reference.codec_writer import DeltaForm, EvenForm
from textnlp_fast.delta import codec

even_forms = st.builds(
    EvenForm,
    contexts=st.frozensets(st.integers(0, 31)),
    order=st.integers(0, 3),
    dominant=st.integers(0, 63),
)
sparse_forms = st.builds(
    SparseForm,
    coder=st.sampled_from([PAIRED, IN_LANES, AS_STEPS, BY_BITS]),
    listed=st.integers(0, 32),
    hazards=st.lists(st.integers(0, 23), min_size=1, max_size=32).map(tuple),
    step=st.sampled_from([2.0**-126, 1e-30, 1e-8, 1e-4, 0.02, 1.0, 65504.0, 3.4e38]),
    idle=st.sampled_from([0, 0, 1, 3, 97]),
    awake=st.booleans(),
    held=st.integers(0, 2 * SIGNS_IN_A_STATE),
)
DENSITIES = ("sparse", "rare", "some_blocks", "one_changed", "ends_changed", "half_same", "same", "dense")


def same_on_every_isa(target: bytes, base: bytes, dtype: str) -> bytes:
    """The payload that every instruction set makes and reads."""
    payloads = set()
    for isa in ISAS:
        with forced(isa):
            payloads.add(codec.encode(target, base, dtype=dtype))
    (payload,) = payloads
    check_on_every_isa(payload, target, base)
    return payload


# --- frames by hand -----------------------------------------------------------------------------------------


@settings(max_examples=examples(200), deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    count=st.one_of(st.integers(1, 1600), st.sampled_from([511, 512, 513, 1024, 1025])),
    seed=st.integers(0, 2**32 - 1),
    kinds=st.tuples(st.sampled_from(sorted(BASES)), st.sampled_from(DENSITIES)),
    form=sparse_forms,
    coding=delta_forms,
    even=even_forms,
)
def test_core_reads_any_sparse_frame(
    dtype: str,
    count: int,
    *,
    seed: int,
    kinds: tuple[str, str],
    form: SparseForm,
    coding: DeltaForm,
    even: EvenForm,
) -> None:
    element = TYPES[dtype]
    target, base = pair(dtype, count, seed, *kinds)
    if dtype not in STEP_TYPES and form.coder == AS_STEPS:
        form = replace(form, coder=PAIRED)
    if form.coder == AS_STEPS:
        target = stepped(dtype, base, form.step, seed, stay=0.1, odd=0.02, still=0.3)
    listed = min(form.listed, coding.contexts)
    # Low enough that what changes has a context, and on purpose at times a little higher.
    highest = max(context_field(value, element) for value in streams.elements(base, element.size))
    field = min(max(0, highest - coding.contexts + 1) + seed % 4, (1 << element.exponent) - 1)
    coding = replace(coding, context_base=field, even=even, segments=1)
    form = replace(form, coding=coding, listed=listed)
    check_by_hand(dtype, target, base, form)


def check_by_hand(dtype: str, target: bytes, base: bytes, form: SparseForm) -> None:
    try:
        payload = encode_sparse(dtype, target, base, form)
    except ValueError:
        assume(False)
    assume(fits(payload))
    assert coders(payload) == [form.coder]
    check_on_every_isa(payload, target, base)


@pytest.mark.parametrize("segments", [1, 2, 5, 16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_in_lanes_of_any_segments(dtype: str, segments: int) -> None:
    element = TYPES[dtype]
    target, base = pair(dtype, 9000, segments, "weights", "some_blocks")
    first = {5: 0, 8: 96, 11: 992}.get(element.exponent, 0)
    coding = DeltaForm(
        12, context_base=first, contexts=32, segments=segments, even=EvenForm(frozenset({9, 11}))
    )
    for listed in (32, 17):
        payload = encode_sparse(
            dtype, target, base, SparseForm(IN_LANES, coding, listed, (5, 23, 1), awake=True)
        )
        assert fits(payload)
        check_on_every_isa(payload, target, base)


@pytest.mark.parametrize("table_log", range(8, 16))
@pytest.mark.parametrize("coder", [PAIRED, IN_LANES])
@pytest.mark.parametrize("dtype", ["U8", "BF16", "F32", "I64"])
def test_every_table_log(dtype: str, coder: int, table_log: int) -> None:
    target, base = pair(dtype, 3000, table_log, "weights", "sparse")
    field = 100 if TYPES[dtype].exponent == 8 else 0
    coding = DeltaForm(table_log, context_base=field, contexts=28, even=EvenForm(frozenset(range(0, 32, 3))))
    payload = encode_sparse(dtype, target, base, SparseForm(coder, coding, 12, (7, 16)))
    check_on_every_isa(payload, target, base)


@pytest.mark.parametrize("idle", [1, 2, 3, 40])
@pytest.mark.parametrize("code", [1, 2, 3, 12, 23])
def test_blocks_full_of_events(code: int, idle: int) -> None:
    """The first hazard and the last, and every element of a block told as a change."""
    base = np.random.default_rng(code).integers(0, 1 << 15, 2 * BLOCK + 77, dtype=np.uint16)
    target = base.copy()
    target[::9] ^= 1
    form = SparseForm(PAIRED, DeltaForm(10), 0, (code,), idle=idle)
    payload = encode_sparse("I16", target.tobytes(), base.tobytes(), form)
    assert fits(payload)
    check_on_every_isa(payload, target.tobytes(), base.tobytes())


@nothing_of_the_core
@settings(max_examples=60, deadline=None)
@given(
    contexts=st.lists(st.integers(0, 9), min_size=1, max_size=1300),
    codes=st.lists(st.integers(0, 23), min_size=8, max_size=8),
    listed=st.integers(0, 8),
    seed=st.integers(0, 999),
)
def test_the_reference_tells_places_apart(
    contexts: list[int], codes: list[int], listed: int, seed: int
) -> None:
    """The oracle against its own writer: what is written as changed is read as changed, in the same order."""
    codes = [0] * listed + codes[listed:]
    hazards = [(0, *(round(2 ** (half / 2)) for half in range(23)))[code] for code in codes]
    rng = np.random.default_rng(seed)
    old = [0] * len(contexts)
    can = [context < listed or (context < 8 and hazards[context] > 0) for context in contexts]
    new = [int(may and rng.random() < 0.1) for may in can]
    pair_writer = PairWriter()
    told = write_places(pair_writer, contexts, codes, new, old, SparseForm(listed=listed))
    packed = pair_writer.pack()
    reader = streams.Bytes(packed, 0, len(packed))
    pair_reader = read_pair(reader)
    assert read_places(pair_reader, contexts, listed, hazards) == told
    pair_reader.finish()
    assert {place for place, changed in enumerate(new) if changed} <= {*told[0], *told[1]}


# --- what the encoder makes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["rare", "sparse", "some_blocks", "one_changed"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_and_share(dtype: str, change: str) -> None:
    seen = set()
    for count in (700, 3000, 20_000):
        target, base = pair(dtype, count, count, "weights", change)
        if target == base:
            continue
        payload = codec.encode(target, base, dtype=dtype)
        seen |= set(modes(payload))
        for isa in ISAS:
            with forced(isa):
                assert codec.encode(target, base, dtype=dtype) == payload
                assert decoded(payload, len(target), base) == target
        if count <= 3000:
            check_on_every_isa(payload, target, base)
    assert seen <= {"sparse", "learned"}


def test_few_are_told_bit_by_bit_and_many_in_lanes() -> None:
    target, base = late_step(40_000)
    assert coders(same_on_every_isa(target, base, "BF16")) == [BY_BITS]
    target, base = pair("BF16", 40_000, 1, "weights", "some_blocks")
    payload = codec.encode(target, base, dtype="BF16")
    assert coders(payload) == [IN_LANES]
    check_on_every_isa(payload, target, base)


@pytest.mark.parametrize("change", ["sparse", "some_blocks", "ends_changed"])
@pytest.mark.parametrize("dtype", ["U8", "BF16", "F32", "F64"])
def test_every_length_up_to_two_blocks(dtype: str, change: str) -> None:
    base = BASES["weights"](np.random.default_rng(3), 1100, TYPES[dtype])
    target = CHANGES[change](base, np.random.default_rng(4)).astype(UNSIGNED[TYPES[dtype].size])
    for count in range(1, 1101):
        part = target[:count].tobytes(), base[:count].tobytes()
        payload = codec.encode(*part, dtype=dtype)
        for isa in ISAS:
            with forced(isa):
                assert codec.encode(*part, dtype=dtype) == payload
                held = bytearray(part[1])
                codec.decode_into(payload, held, held)
                assert bytes(held) == part[0]


def peculiar(dtype: str, count: int) -> tuple[bytes, bytes]:
    """Every change of one exponent has one large size of its own: a table says so at once."""
    element = TYPES[dtype]
    _, base = pair(dtype, count, 6, "weights", "same")
    old = streams.elements(base, element.size)
    rng = np.random.default_rng(6)
    top = 1 << element.bits
    new = [
        (value + 37 + 60 * (context_field(value, element) % 3)) % top if rng.random() < 0.2 else value
        for value in old
    ]
    return streams.to_bytes(new, element.size), base


@pytest.mark.parametrize("dtype", ["I16", "BF16", "F32", "I64"])
def test_what_tables_tell_better_they_tell(dtype: str) -> None:
    target, base = peculiar(dtype, 4000)
    assert coders(same_on_every_isa(target, base, dtype)) == [PAIRED]


def test_learning_takes_fewer_bytes_than_tables() -> None:
    """The same places, tables as the writer by hand makes them."""
    target, base = late_step(20_000)
    learned = codec.encode(target, base, dtype="BF16")
    assert coders(learned) == [BY_BITS]
    coding = DeltaForm(10, Scheme(3, 1), 96, 32, even=EvenForm(frozenset(range(32))))
    for listed in (8, 12, 16):
        form = SparseForm(PAIRED, coding, listed, (12,))
        assert len(learned) < len(encode_sparse("BF16", target, base, form)) - 10


@pytest.mark.parametrize("held", [0, 1, 7, 8, 31, 62])
@pytest.mark.parametrize("changes", [1, 2, 7, 8, 31, 32, 61, 62, 63, 64, 70, 71, 200])
def test_signs_of_any_number(changes: int, held: int) -> None:
    """In the states, behind the pair, or in both."""
    base = np.full(700, 1 << 13, dtype=np.uint16)
    target = base.copy()
    signs = np.random.default_rng(changes).integers(0, 2, changes)
    target[3 : 3 + 3 * changes : 3] += np.where(signs, -1, 1).astype(np.uint16)
    for listed in (0, 1):
        form = SparseForm(BY_BITS, DeltaForm(10), listed, (9,), held=held)
        payload = encode_sparse("I16", target.tobytes(), base.tobytes(), form)
        assert coders(payload) == [BY_BITS]
        check_on_every_isa(payload, target.tobytes(), base.tobytes())
    same_on_every_isa(target.tobytes(), base.tobytes(), "I16")


@pytest.mark.parametrize("scheme", [Scheme(0, 0), Scheme(3, 1), Scheme(16, 2), Scheme(0, 3), Scheme(63, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_learned_in_any_buckets(dtype: str, scheme: Scheme) -> None:
    for seed, change in enumerate(("sparse", "dense", "wide", "other", "flipped_signs")):
        target, base = pair(dtype, 900, seed, "specials" if seed % 2 else "weights", change)
        element = TYPES[dtype]
        field = max(0, (1 << element.exponent) - 32)
        form = SparseForm(
            BY_BITS, DeltaForm(10, scheme, field, 32), 20 if element.exponent else seed % 2, (3, 20)
        )
        try:
            payload = encode_sparse(dtype, target, base, form)
        except ValueError:  # no bucket for a change
            continue
        if fits(payload):
            check_on_every_isa(payload, target, base)


def test_no_more_are_learned_than_a_reader_takes() -> None:
    """Just as many as the format allows, and one more, which is told otherwise."""
    rng = np.random.default_rng(2)
    for count in (MOST_ELEMENTS, MOST_ELEMENTS + 1):
        base = rng.integers(0, 100, count, dtype=np.uint8)
        target = base + (rng.random(count) < 0.02) * rng.choice([1, 255], count).astype(np.uint8)
        assert not np.array_equal(target, base)
        form = SparseForm(BY_BITS, DeltaForm(10), 1, awake=True)
        if count <= MOST_ELEMENTS:
            payload = encode_sparse("U8", target.tobytes(), base.tobytes(), form)
            check_on_every_isa(payload, target.tobytes(), base.tobytes())
        else:
            with pytest.raises(ValueError, match="more elements"):
                encode_sparse("U8", target.tobytes(), base.tobytes(), form)
        same_on_every_isa(target.tobytes(), base.tobytes(), "U8")


def test_blocks_that_stay_cost_next_to_nothing() -> None:
    target, base = pair("BF16", 1 << 19, 1, "weights", "one_changed")
    assert len(codec.encode(target, base, dtype="BF16")) < 80
