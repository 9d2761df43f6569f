"""Hostile and odd safetensors files, made by code, each with the verdict it must get.

``complaint`` is a pattern of our error, or ``None`` where the file is fine. ``peer_accepts`` is what the
safetensors library says; where the two differ, ``why`` says why ours is stricter.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Attack:
    name: str
    content: bytes
    complaint: str | None
    peer_accepts: bool
    why: str = ""


def tensor(
    dtype: str = "F32", shape: tuple[int, ...] = (1,), offsets: tuple[int, ...] = (0, 4), **more: Any
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def file_of(header: bytes | dict[str, Any], data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with this header and data; ``length`` overrides the header's true length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _refused(name: str, content: bytes, complaint: str) -> Attack:
    return Attack(name, content, complaint, peer_accepts=False)


def _fine(name: str, content: bytes) -> Attack:
    return Attack(name, content, None, peer_accepts=True)


def _stricter(name: str, content: bytes, complaint: str, why: str) -> Attack:
    return Attack(name, content, complaint, peer_accepts=True, why=why)


_A = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
_FOUR = b"\x00\x01\x02\x03"

ATTACKS = [
    # --- the length
    _refused("empty_file", b"", "too short"),
    _refused("seven_bytes", b"\x02\x00\x00\x00\x00\x00\x00", "too short"),
    _refused("length_only", struct.pack("<Q", 2), "header of 2 bytes in a file of 8"),
    _refused(
        "length_beyond_the_file",
        file_of({"a": tensor()}, _FOUR, length=1000),
        "header of 1000 bytes in a file",
    ),
    _refused("length_of_all_ones", file_of({"a": tensor()}, _FOUR, length=2**64 - 1), "the format allows"),
    _refused("length_negative_if_signed", file_of({}, length=2**63), "the format allows"),
    _refused("length_just_over_the_limit", file_of({}, length=100_000_001), "the format allows"),
    _refused("length_big_endian", struct.pack(">Q", 2) + b"{}", "the format allows"),
    _refused("length_zero", file_of(b"", _FOUR), "does not start"),
    _refused("length_one_short", file_of(_A + b"}", _FOUR, length=len(_A)), "not JSON"),
    _refused("length_one_long", file_of(_A + b"}", _FOUR, length=len(_A) + 2), "not JSON"),
    # --- the text
    _refused("not_json", file_of(b"{hello}"), "not JSON"),
    _refused("cut_json", file_of(_A, _FOUR), "not JSON"),
    _refused("two_values", file_of(b"{}{}"), "not JSON"),
    _refused("trailing_nul", file_of(b"{}\x00\x00"), "not JSON"),
    _refused("array_on_top", file_of(b"[]"), "does not start"),
    _refused("byte_order_mark", file_of(b"\xef\xbb\xbf{}"), "does not start"),
    _refused("utf16", file_of("{}".encode("utf-16")), "does not start"),
    _refused("not_utf8", file_of(b'{"\xff":{}}'), "not UTF-8"),
    _refused("overlong_utf8", file_of(b'{"\xc0\xaf":{}}'), "not UTF-8"),
    _refused("surrogate_in_utf8", file_of(b'{"\xed\xa0\x80":{}}'), "not UTF-8"),
    _refused(
        "half_a_surrogate_pair", file_of(_A.replace(b'"a"', b'"\\ud800"') + b"}", _FOUR), "half a surrogate"
    ),
    _refused("half_a_pair_in_metadata", file_of(b'{"__metadata__":{"a":"\\udc00"}}'), "half a surrogate"),
    _refused("control_character_in_a_name", file_of(b'{"a\x01":{}}'), "not JSON"),
    _refused(
        "nested_arrays", file_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested|not an object"
    ),
    _refused("nested_objects", file_of(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "nested|unknown dtype"),
    _refused(
        "not_a_number", file_of(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}'), "whole number"
    ),
    _stricter("leading_space", file_of(b" {}"), "does not start", "the format says it begins with '{'"),
    _fine("trailing_spaces", file_of(b"{}      ")),
    _fine("trailing_white_space", file_of(b"{} \n\t\r")),
    _fine("no_tensors", file_of({})),
    # --- names
    _stricter(
        "name_twice", file_of(_A + b"," + _A[1:] + b"}", _FOUR), "'a' occurs twice", "which one counts?"
    ),
    _refused(
        "field_twice", file_of(_A.replace(b'"shape"', b'"dtype":"F32","shape"') + b"}", _FOUR), "occurs twice"
    ),
    _stricter(
        "metadata_key_twice",
        file_of(b'{"__metadata__":{"x":"1","x":"2"}}'),
        "'x' occurs twice",
        "which one counts?",
    ),
    _refused("metadata_twice", file_of(b'{"__metadata__":{},"__metadata__":{}}'), "occurs twice"),
    _fine("empty_name", file_of({"": tensor()}, _FOUR)),
    _fine("name_like_a_path", file_of({"../../etc/passwd\x00\n": tensor()}, _FOUR)),
    _fine("unicode_name", file_of({"слой.вес.\U0001f642": tensor()}, _FOUR)),
    # --- metadata
    _fine("metadata", file_of({"__metadata__": {"format": "pt", "": ""}, "a": tensor()}, _FOUR)),
    _fine("metadata_null", file_of(b'{"__metadata__":null}')),
    _refused("metadata_number", file_of({"__metadata__": {"a": 1}}), "not a string"),
    _refused("metadata_nested", file_of({"__metadata__": {"a": {}}}), "not a string"),
    _refused("metadata_array", file_of({"__metadata__": []}), "not an object"),
    _refused("metadata_is_a_tensor", file_of({"__metadata__": tensor()}, _FOUR), "not a string"),
    # --- fields
    _refused("entry_null", file_of({"a": None}), "not an object"),
    _refused("entry_empty", file_of({"a": {}}), "unknown dtype"),
    _stricter(
        "entry_array", file_of({"a": ["F32", [1], [0, 4]]}, _FOUR), "not an object", "the format has objects"
    ),
    _refused("no_shape", file_of({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, _FOUR), "no list of sizes"),
    _refused("no_offsets", file_of({"a": {"dtype": "F32", "shape": [1]}}, _FOUR), "not two offsets"),
    _refused("dtype_unknown", file_of({"a": tensor("F33")}, _FOUR), "unknown dtype 'F33'"),
    _refused("dtype_lower_case", file_of({"a": tensor("f32")}, _FOUR), "unknown dtype"),
    _refused("dtype_number", file_of({"a": {**tensor(), "dtype": 4}}, _FOUR), "unknown dtype"),
    _refused(
        "dtype_of_another_size", file_of({"a": tensor("F64")}, _FOUR), "takes 8 bytes, its offsets span 4"
    ),
    _refused("shape_number", file_of({"a": {**tensor(), "shape": 1}}, _FOUR), "no list of sizes"),
    _refused("shape_negative", file_of({"a": tensor(shape=(-1, -1))}, _FOUR), "is no size"),
    _refused(
        "shape_minus_zero", file_of(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'), "is no size"
    ),
    _refused("shape_fraction", file_of(_A.replace(b"[1]", b"[1.0]") + b"}", _FOUR), "not a whole number"),
    _refused("shape_exponent", file_of(_A.replace(b"[1]", b"[1e0]") + b"}", _FOUR), "not a whole number"),
    _refused("shape_true", file_of(_A.replace(b"[1]", b"[true]") + b"}", _FOUR), "no list of sizes"),
    _refused("shape_string", file_of(_A.replace(b"[1]", b'["1"]') + b"}", _FOUR), "no list of sizes"),
    _refused(
        "shape_of_a_million_digits", file_of(_A.replace(b"[1]", b"[" + b"9" * 10**6 + b"]") + b"}"), "no size"
    ),
    _refused("shape_2_to_64", file_of({"a": tensor(shape=(2**64, 0), offsets=(0, 0))}), "no list of sizes"),
    _refused(
        "product_overflows_to_zero", file_of({"a": tensor(shape=(2**32, 2**32), offsets=(0, 0))}), "overflows"
    ),
    _refused(
        "product_overflows_to_one",
        file_of({"a": tensor("U8", (3, 0xAAAAAAAAAAAAAAAB), (0, 1))}, b"0"),
        "overflow",
    ),
    _refused("bits_overflow_to_32", file_of({"a": tensor(shape=(2**59 + 1,))}, _FOUR), "overflow"),
    _refused(
        "overflow_before_a_zero", file_of({"a": tensor(shape=(2**63, 2**63, 0), offsets=(0, 0))}), "overflows"
    ),
    _fine("zero_before_an_overflow", file_of({"a": tensor(shape=(0, 2**63, 2**63), offsets=(0, 0))})),
    _refused("huge_shape", file_of({"a": tensor(shape=(2**40,))}, _FOUR), "its offsets span 4"),
    _fine("scalar", file_of({"a": tensor(shape=())}, _FOUR)),
    _fine("field_unknown", file_of({"a": tensor(quantised={"by": "x"})}, _FOUR)),
    _stricter(
        "fraction_in_an_unknown_field",
        file_of({"a": tensor(scale=1.5)}, _FOUR),
        "not a whole number",
        "a header has no use for fractions, and Python's floats would not survive",
    ),
    # --- places
    _refused("offsets_three", file_of({"a": tensor(offsets=(0, 4, 8))}, _FOUR), "not two offsets"),
    _refused("offsets_one", file_of({"a": tensor(offsets=(4,))}, _FOUR), "not two offsets"),
    _refused("offsets_backwards", file_of({"a": tensor(offsets=(4, 0))}, _FOUR), "before it begins"),
    _refused("offsets_negative", file_of({"a": tensor(offsets=(-4, 0))}, _FOUR), "is no size"),
    _refused("offsets_huge", file_of({"a": tensor(offsets=(2**64 - 5, 2**64 - 1))}, _FOUR), "leaves a hole"),
    _refused(
        "offsets_past_the_end", file_of({"a": tensor(shape=(2,), offsets=(0, 8))}, _FOUR), "the file at"
    ),
    _refused("hole_at_the_start", file_of({"a": tensor(offsets=(4, 8))}, _FOUR * 2), "leaves a hole"),
    _refused(
        "hole_in_the_middle",
        file_of({"a": tensor(), "b": tensor(offsets=(8, 12))}, _FOUR * 3),
        "'b' leaves a hole",
    ),
    _refused("overlap", file_of({"a": tensor(), "b": tensor(offsets=(2, 6))}, _FOUR * 2), "'b' overlaps"),
    _refused("same_place", file_of({"a": tensor(), "b": tensor()}, _FOUR), "overlaps"),
    _refused(
        "inside",
        file_of({"a": tensor(shape=(3,), offsets=(0, 12)), "b": tensor(offsets=(4, 8))}, _FOUR * 3),
        "'b'",
    ),
    _refused(
        "empty_inside",
        file_of({"a": tensor(), "b": tensor(shape=(0,), offsets=(2, 2))}, _FOUR),
        "'b' overlaps",
    ),
    _refused("byte_behind_the_tensors", file_of({"a": tensor()}, _FOUR + b"x"), "the file at"),
    _refused("byte_missing", file_of({"a": tensor()}, _FOUR[:3]), "the file at"),
    _refused("data_without_tensors", file_of({}, b"x"), "the file at"),
    _fine("order_of_names_is_free", file_of({"b": tensor(offsets=(4, 8)), "a": tensor()}, _FOUR * 2)),
    _fine(
        "empty_tensors_between",
        file_of(
            {
                "z": tensor(shape=(0,), offsets=(0, 0)),
                "a": tensor(),
                "e": tensor("F4", (2, 0), (4, 4)),
                "b": tensor(offsets=(4, 8)),
                "last": tensor(shape=(5, 0), offsets=(8, 8)),
            },
            _FOUR * 2,
        ),
    ),
    # --- elements smaller than a byte
    _refused("half_bytes_odd", file_of({"a": tensor("F4", (3,), (0, 2))}, b"00"), "12 bits of F4"),
    _fine("half_bytes_even", file_of({"a": tensor("F4", (2, 2), (0, 2))}, b"00")),
    _refused("six_bits_odd", file_of({"a": tensor("F6_E2M3", (1,), (0, 1))}, b"0"), "6 bits of F6_E2M3"),
    _fine("six_bits_four_times", file_of({"a": tensor("F6_E3M2", (4,), (0, 3))}, b"000")),
]
