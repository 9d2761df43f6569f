"""The safetensors reader against hostile files, against the safetensors library, and on real ones."""

from __future__ import annotations

import json
import os
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attacks.headers import ATTACKS, Attack, file_of, tensor
from textnlp_fast.errors import InvalidInputError, SafetensorsError
from textnlp_fast.tensors import DTYPE_BITS, Header, SafetensorsFile, parse_header, read_into

peer = pytest.importorskip("safetensors")

# What the library takes and we do not; each is an attack with its reason in attacks/headers.py.
KNOWN_STRICTER = re.compile(r"occurs twice|does not start with|not an object|not a whole number|is no size")


def parse(content: bytes) -> Header:
    """As ``SafetensorsFile.open`` reads it, from memory."""
    length = int.from_bytes(content[:8], "little")
    return parse_header(content[: 8 + length], len(content))


def peer_accepts(content: bytes) -> bool:
    try:
        peer.deserialize(content)
    except peer.SafetensorError:
        return False
    return True


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attacks_get_their_verdict(attack: Attack, tmp_path: Path) -> None:
    path = tmp_path / "attack.safetensors"
    path.write_bytes(attack.content)
    assert peer_accepts(attack.content) == attack.peer_accepts
    if attack.complaint is None:
        file = SafetensorsFile.open(path)
        assert attack.content.startswith(file.header_bytes)
        assert file.size == len(attack.content)
        assert Header(file.tensors, file.metadata) == parse(attack.content)
    else:
        with pytest.raises(SafetensorsError, match=attack.complaint) as caught:
            SafetensorsFile.open(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 1000
        assert str(caught.value).isascii()
        assert caught.value.hint


def test_every_difference_to_the_library_has_a_reason() -> None:
    for attack in ATTACKS:
        assert bool(attack.why) == (attack.peer_accepts != (attack.complaint is None)), attack.name


def test_names_are_unique() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


# --- against the library ------------------------------------------------------------------------------------

SIZES = st.integers(0, 5) | st.sampled_from([2**31, 2**32, 2**61, 2**63, 2**64 - 1, 2**64])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPE_BITS, "F33", "", None]),
        "shape": st.lists(SIZES, max_size=4) | st.none() | st.just([-1]),
        "data_offsets": st.lists(SIZES, min_size=2, max_size=2)
        | st.lists(SIZES, max_size=3)
        | st.just([4, 8]),
    },
    optional={"more": st.none() | st.text(max_size=3)},
)
HEADERS = st.dictionaries(
    st.text(max_size=3) | st.just("__metadata__"), ENTRIES | st.dictionaries(st.text(), st.text())
)


def check_agreement(content: bytes) -> None:
    """What we take it takes, and places the same; what only it takes we refuse for a known reason."""
    try:
        header = parse(content)
    except SafetensorsError as error:
        assert not peer_accepts(content) or KNOWN_STRICTER.search(str(error.args[0])), error
        return
    length = int.from_bytes(content[:8], "little")
    theirs = {
        name: (info["dtype"], info["shape"], bytes(info["data"])) for name, info in peer.deserialize(content)
    }
    ours = {t.name: (t.dtype, list(t.shape), content[t.begin : t.end]) for t in header.tensors}
    assert ours == theirs
    position = 8 + length
    for info in header.tensors:
        assert info.begin == position
        position = info.end
    assert position == len(content)


@given(HEADERS, st.integers(0, 12))
def test_agrees_with_the_library_on_made_up_headers(header: dict[str, object], size: int) -> None:
    check_agreement(file_of(header, bytes(size)))


@st.composite
def laid_out(draw: st.DrawFn) -> bytes:
    """A correct file of some tensors."""
    header: dict[str, object] = {}
    position = 0
    for name in draw(st.lists(st.text(max_size=5), max_size=6, unique=True)):
        dtype = draw(st.sampled_from(list(DTYPE_BITS)))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        bits = DTYPE_BITS[dtype] * int(np.prod(shape, dtype=np.int64))
        if bits % 8 or name == "__metadata__":
            continue
        header[name] = tensor(dtype, tuple(shape), (position, position + bits // 8))
        position += bits // 8
    padding = b" " * draw(st.integers(0, 8))
    data = bytes(index * 37 % 251 for index in range(position))
    return file_of(json.dumps(header, ensure_ascii=draw(st.booleans())).encode() + padding, data)


@given(laid_out())
def test_takes_every_correct_file(content: bytes) -> None:
    parse(content)
    check_agreement(content)


@given(laid_out(), st.data())
@example(file_of({"a": tensor()}, b"0000"), None)
def test_agrees_with_the_library_on_mutated_files(content: bytes, data: st.DataObject | None) -> None:
    if data is None:
        check_agreement(content)
        return
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(0, len(changed) - 1)))
        what = data.draw(st.sampled_from(["flip", "set", "cut", "insert", "digit"]))
        if what == "flip" and changed:
            changed[place] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "set" and changed:
            changed[place] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del changed[place : place + data.draw(st.integers(1, 9))]
        elif what == "insert":
            changed[place:place] = data.draw(
                st.sampled_from([b'"', b"0", b"}", b",", b"9" * 25, b"-", b" ", b"[1]"])
            )
        elif digits := [i for i, byte in enumerate(changed) if byte in b"0123456789" and i >= 8]:
            changed[data.draw(st.sampled_from(digits))] = data.draw(st.sampled_from(b"0123456789"))
    content = bytes(changed)
    if len(content) >= 8:  # keep the length right in half of the cases, or nothing behind it is ever reached
        if data.draw(st.booleans()) and (end := content.rfind(b"}")) > 8:
            content = struct.pack("<Q", end + 1 - 8) + content[8:]
        check_agreement(content)


@given(st.binary(max_size=200))
def test_random_bytes_give_a_verdict(content: bytes) -> None:
    for candidate in (content, file_of(b"{" + content)):
        try:
            parse(candidate)
        except SafetensorsError:
            continue


# --- the reader ---------------------------------------------------------------------------------------------


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    from safetensors.numpy import save_file  # noqa: PLC0415  the skip above comes first

    rng = np.random.default_rng(0)
    arrays = {f"layer.{i}.weight": rng.standard_normal((i, 7)).astype(np.float16) for i in range(5)}
    path = tmp_path / "model.safetensors"
    save_file(arrays, path, metadata={"format": "np"})
    file = SafetensorsFile.open(path)
    assert file.metadata == {"format": "np"}
    assert {info.name for info in file.tensors} == set(arrays)
    for info in file.tensors:
        buffer = np.empty(info.shape, np.float16)
        assert info.dtype == "F16"
        assert info.size_bytes == buffer.nbytes
        read_into(path, info.begin, buffer)
        np.testing.assert_array_equal(buffer, arrays[info.name])
    content = path.read_bytes()
    assert file.header_bytes == content[: len(file.header_bytes)]
    assert file.header_bytes + content[file.tensors[0].begin :] == content


def test_real_checkpoints() -> None:
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "checkpoints"
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        pytest.skip("no checkpoints beside the repository")
    for path in paths:
        check_agreement(path.read_bytes())


def test_reads_into_a_descriptor_from_any_place(tmp_path: Path) -> None:
    path = tmp_path / "data"
    data = os.urandom(100_000)
    path.write_bytes(data)
    buffer = bytearray(50_000)
    with path.open("rb") as file:
        read_into(file.fileno(), 30_000, buffer)
        assert buffer == data[30_000:80_000]
        assert file.tell() == 0
    with pytest.raises(InvalidInputError, match="ended at byte 100000"):
        read_into(path, 60_000, buffer)
    read_into(path, 100_000, bytearray())
    with pytest.raises(InvalidInputError, match="absent"):
        read_into(tmp_path / "absent", 0, buffer)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(SafetensorsError, match="git lfs pull"):
        SafetensorsFile.open(path)


def test_opens_regular_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "pipe.safetensors", tmp_path, tmp_path / "absent.safetensors", Path("/dev/zero")):
        with pytest.raises(InvalidInputError):
            SafetensorsFile.open(path)


def test_a_claimed_size_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**60))
        file.truncate(1 << 30)
    tracemalloc.start()
    with pytest.raises(SafetensorsError, match="the format allows"):
        SafetensorsFile.open(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
