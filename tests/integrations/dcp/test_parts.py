"""The pure parts of checkpoints: boxes, values, the record, what is held. numpy is the oracle."""

from __future__ import annotations

import importlib.util
import json
import struct
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if importlib.util.find_spec("torch") is None:
    pytest.skip("needs torch: pip install torch, its CPU build", allow_module_level=True)

from textnlp_fast.contents.documents import Broken, seal_document
from textnlp_fast.errors import CorruptDataError, InvalidInputError, UnsupportedFormatError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.integrations.torch_dcp.coding import Carrier
from textnlp_fast.integrations.torch_dcp.held import HeldPieces
from textnlp_fast.integrations.torch_dcp.layout import Layout, Place, TensorLayout, layout_bytes, read_layout
from textnlp_fast.integrations.torch_dcp.naming import reference_of, version_of
from textnlp_fast.integrations.torch_dcp.regions import Box, Stored, base_of, is_covered
from textnlp_fast.integrations.torch_dcp.values import NotPlainError, decode_value, encode_value
from textnlp_fast.storage.names import ModelReference
from textnlp_fast.storage.packing import ShardObject, Slot

shapes = st.lists(st.integers(1, 7), min_size=0, max_size=3).map(tuple)


@st.composite
def grids(draw: st.DrawFn, shape: tuple[int, ...]) -> list[Box]:
    """A tensor cut into a grid of boxes."""
    boxes = [((), ())]
    for length in shape:
        cuts = sorted({0, length, *draw(st.lists(st.integers(0, length), max_size=2))})
        spans = list(pairwise(cuts))
        boxes = [((*o, a), (*s, b - a)) for o, s in boxes for a, b in spans]
    return [Box(offsets, sizes) for offsets, sizes in boxes]


@st.composite
def dealt(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Box], list[Box]]:
    """A shape, and two ways to cut it."""
    shape = draw(shapes)
    return shape, draw(grids(shape)), draw(grids(shape))


def cut(whole: Any, box: Box) -> Any:
    return whole[tuple(slice(o, o + s) for o, s in zip(box.offsets, box.sizes, strict=True))]


@given(dealt(), st.sampled_from([np.uint8, np.uint16, np.float64]))
@settings(max_examples=60)
def test_a_box_is_made_of_pieces_cut_otherwise(case: Any, dtype: Any) -> None:
    shape, old, new = case
    whole = np.random.default_rng(0).integers(0, 255, shape).astype(dtype).reshape(shape)
    stored, contents = [], {}
    for box in old:
        data = cut(whole, box).tobytes()
        # As ours: contents are named by their bytes, so two pieces may be one.
        contents[blake3_hex(data)] = data
        stored.append(Stored(box, blake3_hex(data)))
    for box in new:
        recipe = base_of(box, stored, whole.itemsize)
        assert recipe is not None
        recipe.check_sources({digest: len(data) for digest, data in contents.items()})
        assert (
            bytes(recipe.read(0, recipe.size_bytes, lambda d, b, e: contents[d][b:e]))
            == cut(whole, box).tobytes()
        )
    assert is_covered(shape, old)


def test_no_base_where_something_is_missing_or_there_are_too_many_runs() -> None:
    digest = "0" * 64
    assert base_of(Box((0,), (8,)), [Stored(Box((0,), (4,)), digest)], 2) is None
    assert base_of(Box((0,), (8,)), [], 2) is None
    assert base_of(Box((0,), (0,)), [], 2) is None
    tall = Box.whole((10_000, 2))
    halves = [Stored(Box((0, column), (10_000, 1)), digest) for column in range(2)]
    assert base_of(tall, halves, 2) is None


@pytest.mark.parametrize(
    "boxes",
    [
        [Box((0, 0), (2, 4))],
        [Box((0, 0), (2, 4)), Box((1, 0), (2, 4))],
        [Box((0, 0), (4, 4)), Box((0, 0), (4, 4))],
        [Box((0, 0), (4, 2)), Box((0, 1), (4, 2))],
    ],
)
def test_boxes_with_holes_or_twice_the_same_are_no_tensor(boxes: list[Box]) -> None:
    assert not is_covered((4, 4), boxes)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.lists(inside, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inside, max_size=3)
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal in type and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    return bool(one == other)


@given(plain)
@settings(max_examples=80)
def test_plain_values_come_back_exactly(value: Any) -> None:
    assert same(decode_value(json.loads(json.dumps(encode_value(value)))), value)


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, np.float64(1), [slice(1)], "\ud800"])
def test_others_are_no_plain_values(value: Any) -> None:
    with pytest.raises(NotPlainError):
        encode_value(value)


def test_a_value_without_end_is_none() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(NotPlainError, match="nested"):
        encode_value(value)


@pytest.mark.parametrize(
    "encoded",
    [
        1.5,
        {},
        {"float": "00"},
        {"float": 3},
        {"int": "zz"},
        {"bytes": "*"},
        {"tuple": 3},
        {"dict": [[1]]},
        {"dict": [[1, 2], [1, 3]]},
        {"dict": [[{"dict": []}, 1]]},
        {"code": "x"},
        {"a": 1, "b": 2},
    ],
)
def test_what_is_no_value_is_refused(encoded: Any) -> None:
    with pytest.raises(Broken):
        decode_value(encoded)


def layout() -> Layout:
    rows = [(Box((0, 0), (3, 4)), Place(0, "w")), (Box((3, 0), (2, 4)), Place(1, "w"))]
    return Layout(
        ("rank-0/model.safetensors", "rank-1/model.safetensors"),
        {
            "w": TensorLayout("BF16", (5, 4), tuple(rows)),
            "s": TensorLayout("F32", (), ((Box((), ()), Place(0, "s")),)),
        },
        {"lr": encode_value(0.5)},
        {"p": Place(1, "p")},
        encode_value({"w": ("w",)}),
    )


def test_the_record_comes_back() -> None:
    data = layout_bytes(layout())
    assert read_layout(data) == layout()
    assert layout_bytes(read_layout(data)) == data


def changed(**changes: Any) -> bytes:
    """The record with other members, sealed anew as whoever writes to the bucket can."""
    document = json.loads(layout_bytes(layout()))
    document.pop("digest")
    return seal_document({**document, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"files": [1]},
        {"tensors": [["w", "BF16", [5, 4], [[0, [0, 0], [3, 4], None]]]]},
        {"tensors": [["w", "BF16", [5, 4], [[0, [0, 0], [5, 4], None], [1, [3, 0], [2, 4], None]]]]},
        {"tensors": [["w", "BF16", [5, 4], [[7, [0, 0], [5, 4], None]]]]},
        {"tensors": [["w", "BF16", [5, 4], [[0, [0, -1], [5, 5], None]]]]},
        {"tensors": [["w", "BF16", [1 << 60], []]]},
        {"tensors": [["w", "F4", [2], [[0, [0], [2], None]]]]},
        {"tensors": [["w", "ODD", [2], [[0, [0], [2], None]]]]},
        {"tensors": [["w", "U8", [0], []], ["w", "U8", [0], []]]},
        {"tensors": [["lr", "U8", [0], []]]},
        {"tensors": [["w"]]},
        {"tensors": 3},
        {"values": [["lr", {"code": "x"}]]},
        {"values": [[3, 4]]},
        {"pickles": [["p", 9, "p"]]},
        {"planner": {"code": 1}},
    ],
)
def test_a_record_that_breaks_a_rule_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptDataError):
        read_layout(changed(**changes))


def test_a_record_of_another_kind_is_not_read() -> None:
    with pytest.raises(UnsupportedFormatError):
        read_layout(changed(kind="other"))
    with pytest.raises(UnsupportedFormatError):
        read_layout(changed(format=2))


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans(), st.booleans()), min_size=1, max_size=40
    ),
    st.integers(0, 600),
)
@settings(max_examples=60)
def test_what_is_held_is_right_and_within_the_budget(steps: list[Any], budget: int) -> None:
    held = HeldPieces()
    held.begin(budget)
    known: dict[str, bytes] = {}
    for key, content, is_root, new_round in steps:
        if new_round:
            held.begin(budget)
        data = bytes([content]) * (40 + 20 * (content % 2))
        digest = blake3_hex(data)
        known[digest] = data
        held.put(key, digest, np.frombuffer(data, np.uint8), is_root=is_root)
        assert held.used_bytes <= budget
        for name, expected in known.items():
            found = held.get(name)
            assert found is None or bytes(found) == expected
        if budget >= 600:  # room for all that there can be
            assert held.get(digest) is not None
    held.begin(0)
    assert held.used_bytes == 0
    assert all(held.get(name) is None for name in known)


class Shards:
    """What ShardWriter does with one shard."""

    def __init__(self) -> None:
        self.data = b""

    def add(self, payload: bytes | memoryview) -> Slot:
        self.data += payload
        return Slot(0, len(self.data) - len(payload), len(payload))

    def finish(self) -> list[ShardObject]:
        return [ShardObject(blake3_hex(self.data), len(self.data), True)] if self.data else []


@given(st.lists(st.binary(max_size=9), max_size=12), st.integers(0, 40))
@settings(max_examples=100)
def test_little_is_carried_and_more_is_stored_as_it_would_be(windows: list[bytes], most: int) -> None:
    shards, plain = Shards(), Shards()
    carrier = Carrier(shards, most)  # type: ignore[arg-type]
    slots = [carrier.add(memoryview(window)) for window in windows]
    assert slots == [plain.add(window) for window in windows]
    stored, carried = carrier.finish()
    if len(plain.data) <= most:
        assert (stored, carried) == ((), plain.data)
    else:
        assert (shards.data, carried, len(stored)) == (plain.data, b"", 1)


def test_which_version_an_id_means() -> None:
    assert [version_of(each) for each in ("7", 7, "007", "1.2.0", str(2**53 - 1))] == [
        "0.0.7",
        "0.0.7",
        "0.0.7",
        "1.2.0",
        f"0.0.{2**53 - 1}",
    ]
    for wrong, hint in (
        ("step-7", "7 is version 0.0.7"),
        ("/checkpoints/run/7/", "7 is version 0.0.7"),
        (str(2**53), "Steps go up to"),
        ("9" * 5000, "Steps go up to"),
        ("1.0", "MAJOR.MINOR.PATCH"),
        ("", "MAJOR.MINOR.PATCH"),
        ("-1", "1 is version 0.0.1"),
    ):
        with pytest.raises(InvalidInputError) as refused:
            version_of(wrong)
        assert hint in refused.value.hint
        if wrong != "step-7":  # may be an alias
            with pytest.raises(InvalidInputError) as refused:
                reference_of(wrong, "m")
            assert hint in refused.value.hint
    assert reference_of("step-7", "m") == ModelReference("m", "step-7")
    assert reference_of(7, "m") == reference_of("m@0.0.7", "other") == ModelReference("m", "0.0.7")
