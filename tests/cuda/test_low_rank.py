"""Low-rank prediction of arrays on a device equals the core's, in place and not, in any stretch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.devices import NO_DEVICE, to_device, to_host
from reference.low_rank_inputs import made
from textnlp_fast.delta import low_rank
from textnlp_fast.delta.low_rank import FACTOR_DTYPES, RESULT_DTYPES, ROUNDINGS
from textnlp_fast.errors import InvalidInputError

pytestmark = [pytest.mark.gpu, NO_DEVICE]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
    rank=st.integers(1, 20),
    seed=st.integers(0, 2**32),
    kinds=st.tuples(
        st.sampled_from(RESULT_DTYPES), st.sampled_from([*FACTOR_DTYPES]), st.sampled_from([*FACTOR_DTYPES])
    ),
    rounding=st.sampled_from(ROUNDINGS),
    strange=st.booleans(),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_the_same_bits(
    rows: int,
    columns: int,
    rank: int,
    seed: int,
    kinds: tuple[str, str, str],
    rounding: str,
    strange: bool,
    part: tuple[float, float],
) -> None:
    base, factors = made(rows, columns, rank, seed, kinds=" ".join(kinds), rounding=rounding, strange=strange)
    dtype = kinds[0]
    width = FACTOR_DTYPES[dtype]
    first, last = sorted(int(share * rows * columns) for share in part)
    stretch = np.frombuffer(base, np.uint8)[first * width : last * width].copy()
    expected = low_rank.predict(stretch.tobytes(), factors, dtype=dtype, first_element=first)
    out, on_device = to_device(np.zeros(stretch.nbytes, np.uint8)), to_device(stretch, offset=1)
    low_rank.predict_into(on_device, out, factors, dtype=dtype, first_element=first)
    assert to_host(out).tobytes() == expected
    low_rank.predict_into(on_device, on_device, factors, dtype=dtype, first_element=first)
    assert to_host(on_device).tobytes() == expected


def test_wrong_calls() -> None:
    base, factors = made(4, 5, 2, 0)
    data = np.frombuffer(base, np.uint8).copy()
    array, out = to_device(data), to_device(np.full(40, 7, np.uint8))
    with pytest.raises(InvalidInputError, match="host memory"):
        low_rank.predict_into(data, out, factors, dtype="BF16")
    with pytest.raises(InvalidInputError, match="lives on a device"):
        low_rank.predict_into(array, data, factors, dtype="BF16")
    with pytest.raises(InvalidInputError, match="same whole number"):
        low_rank.predict_into(to_device(data[:38]), out, factors, dtype="BF16")
    with pytest.raises(InvalidInputError, match="same whole number"):
        low_rank.predict_into(to_device(data[:39]), to_device(data[:39]), factors, dtype="BF16")
    with pytest.raises(InvalidInputError):
        low_rank.predict_into(array, out, factors, dtype="BF16", first_element=1)
    with pytest.raises(InvalidInputError, match="dtype"):
        low_rank.predict_into(array, out, factors, dtype="F64")
    assert (to_host(out) == 7).all()
