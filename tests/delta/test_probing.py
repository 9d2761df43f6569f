"""Samples as directions: what they are made of must not matter, only how they vary."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from textnlp_fast.delta.probing import directions


@pytest.mark.parametrize("scale", [1e-38, 1.0, 3e38])
def test_directions_are_correlations_at_any_scale(scale: float) -> None:
    rng = np.random.default_rng(3)
    one, other = rng.uniform(-1, 1, (2, 4096))
    mixed = 0.6 * one + 0.4 * other
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = directions(
            [((scale * values).astype(np.float32).view(np.uint32), "F32") for values in (one, mixed)]
        )
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-3)
    assert rows[0] @ rows[1] == pytest.approx(np.corrcoef(one, mixed)[0, 1], abs=0.02)


def test_constant_samples_have_no_direction() -> None:
    for value in (0.0, 5.0, 3e38):
        bits = np.full(64, value, np.float32).view(np.uint32)
        assert not directions([(bits, "F32")]).any()
