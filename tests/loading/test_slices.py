"""Parts of tensors: what numpy slices out of the whole, and no more read than that."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta.models import Model, Tensor, nudged, write
from loading.loads import DEVICES, OPTIONS, bytes_of
from textnlp_fast import load
from textnlp_fast.loading import Slice
from textnlp_fast.loading.block_reading import BlockFiles
from textnlp_fast.loading.files import plan_reads
from textnlp_fast.loading.places import Place, Wanted
from textnlp_fast.storage import Repository
from textnlp_fast.tensors import TensorInfo
from textnlp_fast.tensors.slices import cut_of

ITEMS = {"U8": 1, "BF16": 2, "F32": 4, "F64": 8}


@st.composite
def sliced(draw: st.DrawFn) -> tuple[str, tuple[int, ...], Slice]:
    """A dtype, a shape, and a slice that it can be dealt out in."""
    degree = draw(st.integers(1, 4))
    shape = draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    shape[dim] = degree * draw(st.integers(0, 4))
    return (
        draw(st.sampled_from(sorted(ITEMS))),
        tuple(shape),
        Slice(dim, draw(st.integers(0, degree - 1)), degree),
    )


def by_numpy(data: bytes, dtype: str, shape: tuple[int, ...], part: Slice) -> np.ndarray[Any, Any]:
    whole = np.frombuffer(data, np.uint8).reshape(*shape, ITEMS[dtype])
    axis = part.dim % len(shape)
    return np.split(whole, part.degree, axis=axis)[part.rank]


@given(sliced(), st.data())
def test_any_window_of_a_tensor_gives_its_share(
    case: tuple[str, tuple[int, ...], Slice], data: st.DataObject
) -> None:
    dtype, shape, part = case
    size = int(np.prod(shape)) * ITEMS[dtype]
    source = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    cut = cut_of("x", shape, dtype, part)
    expected = by_numpy(source.tobytes(), dtype, shape, part)
    assert cut.shape == expected.shape[:-1]
    assert cut.size_bytes == expected.size
    assert (
        b"".join(source[run.begin : run.begin + run.size].tobytes() for run in cut.runs())
        == expected.tobytes()
    )
    out = np.zeros(cut.size_bytes, np.uint8)
    cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=5))})
    for begin, end in pairwise(cuts):
        cut.take(begin, source[begin:end], out)
    assert out.tobytes() == expected.tobytes()


@settings(max_examples=60)
@given(
    st.lists(sliced(), min_size=1, max_size=4),
    st.integers(1, 400),
    st.integers(0, 64),
)
def test_reads_have_all_that_is_wanted_and_little_more(
    cases: list[tuple[str, tuple[int, ...], Slice]], block_bytes: int, gap_bytes: int
) -> None:
    tensors = []
    at = 100
    for number, (dtype, shape, part) in enumerate(cases):
        size = int(np.prod(shape)) * ITEMS[dtype]
        info = TensorInfo(f"t{number}", dtype, shape, at, at + size)
        wanted = Wanted(info.name, dtype, shape, cut_of(info.name, shape, dtype, part))
        tensors.append((info, Place(wanted, np.zeros(wanted.size, np.uint8), None, None)))
        at += size
    source = np.random.default_rng(at).integers(0, 256, at, np.uint8)
    reads = plan_reads("file", tensors, block_bytes, gap_bytes=gap_bytes)
    begins = [read.begin for read in reads]
    assert begins == sorted(begins)
    wanted_bytes = sum(place.wanted.size for _, place in tensors)
    read_bytes = 0
    most_gaps = 0
    for read in reads:
        assert 0 < read.size <= max(block_bytes, 1)
        read_bytes += read.size
        data = source[read.begin : read.begin + read.size]
        for part in read.parts:
            part.place.wanted.cut.take(part.offset, data[part.begin : part.end], part.place.host)
            most_gaps += part.place.wanted.cut.count + 1
    for info, place in tensors:
        assert place.host is not None
        case = cases[int(info.name[1:])]
        assert place.host.tobytes() == by_numpy(source[info.begin : info.end].tobytes(), *case).tobytes()
    assert wanted_bytes <= read_bytes <= wanted_bytes + most_gaps * gap_bytes


def model() -> Model:
    rng = np.random.default_rng(3)
    words = (rng.normal(0, 0.02, (96, 64)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    cube = rng.integers(0, 256, (4, 6, 50), np.uint8)
    return {
        "m.safetensors": {
            "q": Tensor("BF16", (96, 64), words.tobytes()),
            "cube": Tensor("U8", (4, 6, 50), cube.tobytes()),
            "norm": Tensor("F32", (64,), rng.bytes(256)),
        }
    }


def changed(before: Model) -> Model:
    tensors = before["m.safetensors"]
    assert isinstance(tensors, dict)
    return {"m.safetensors": {name: nudged(tensor, 5) for name, tensor in tensors.items()}}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Model]:
    """A repository whose latest version is a delta, its files, and what is in them."""
    folder = tmp_path_factory.mktemp("slices")
    repository = Repository.open(folder / "r", create=True, options=OPTIONS, window_bytes=1 << 12)
    repository.push(write(model(), folder / "a"), "m", "1.0.0")
    second = changed(model())
    repository.push(write(second, folder / "b"), "m", "1.1.0", parent="1.0.0")
    return folder / "r", folder / "b", second


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", ["files", "checked", "frames only"])
def test_every_rank_gets_its_part(
    places: tuple[Path, Path, Model], device: str, dim: int, rank: int, how: str
) -> None:
    folder, files, second = places
    tensors = second["m.safetensors"]
    assert isinstance(tensors, dict)
    slices = {"q": Slice(dim, rank, 2), "cu*": (dim, rank, 2)}
    if how == "files":
        loaded = load(files, device=device, slices=slices)
    else:
        loaded = load(
            "m", "1.1.0", repository=folder, device=device, slices=slices, check_slices=how == "checked"
        )
    for name, tensor in tensors.items():
        found = loaded[name]
        if name == "norm":
            assert bytes_of(found) == tensor.data
            continue
        items = np.frombuffer(tensor.data, np.uint16 if name == "q" else np.uint8).reshape(tensor.shape)
        part = np.split(items, 2, axis=dim)[rank]
        assert found.shape == part.shape
        assert bytes_of(found) == part.tobytes()


def test_rows_read_only_the_frames_that_have_them(
    places: tuple[Path, Path, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _ = places
    read: list[int] = []
    from textnlp_fast.objectstore import ObjectStore  # noqa: PLC0415

    plain = ObjectStore.get_range

    def counted(self: ObjectStore, key: str, start: int, length: int) -> memoryview:
        read.append(length)
        return plain(self, key, start, length)

    monkeypatch.setattr(ObjectStore, "get_range", counted)
    manifest = Repository.open(folder).manifest("m", "1.0.0")
    whole = max(content.coded_bytes for content in manifest.contents.values())
    load("m", "1.0.0", repository=folder, names=["q"], slices={"q": (0, 0, 6)}, check_slices=False)
    assert 0 < sum(read) < whole / 2


def test_a_file_is_read_no_further_than_its_slices(
    places: tuple[Path, Path, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files, _ = places
    read: list[int] = []
    plain = BlockFiles.read_cached

    def counted(self: BlockFiles, path: str, views: Any, offset: int) -> bool:
        read.append(sum(map(len, views)))
        return plain(self, path, views, offset)

    monkeypatch.setattr(BlockFiles, "read_cached", counted)
    load(files, names=["q"], slices={"q": (0, 1, 4)})
    assert sum(read) == 96 * 64 * 2 // 4
