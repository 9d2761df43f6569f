"""The inventory names each tensor by the digest of its bytes, however it reads them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import blake3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.conftest import write_safetensors
from textnlp_fast.contents import inventory
from textnlp_fast.contents.inventory import take_inventory


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=30),
    st.integers(1, 500),
    st.sampled_from([None, frozenset({0, 8, 100}), frozenset(range(0, 400, 2))]),
)
def test_digests_are_those_of_the_tensors(
    sizes: list[int], read_bytes: int, wanted: frozenset[int] | None
) -> None:
    rng = np.random.default_rng(len(sizes))
    tensors = {f"t{number}": rng.integers(0, 256, size, np.uint8) for number, size in enumerate(sizes)}
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(inventory, "READ_BYTES", read_bytes)
        path = write_safetensors(Path(folder) / "model.safetensors", tensors)
        (file,) = take_inventory(path, threads=2, sizes=wanted)
    found = {part.name: part.digest for part in file.parts[1:]}
    assert found == {
        name: blake3.blake3(array.tobytes()).hexdigest()
        for name, array in tensors.items()
        if wanted is None or array.nbytes in wanted
    }
