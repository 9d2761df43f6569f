"""What holds of all rivals alike."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gpu.scaling.policy_cases import observed
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.policy import ColdStart, Policy, ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals import RIVALS, rival


def _make(name: str, *, target_utilisation: float = 0.7, least: int = 1, most: int = 20) -> Policy:
    return rival(
        name,
        target_utilisation=target_utilisation,
        capacity=ReplicaCapacity(concurrency=10.0, requests_per_s=2.0),
        min_instances=least,
        max_instances=most,
        cold_start=ColdStart(),
        period_s=10.0,
    )


@pytest.mark.parametrize("name", RIVALS)
def test_each_has_its_name(name: str) -> None:
    assert _make(name).name == name


def test_an_unknown_one_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidInputError, match="no rival is called") as caught:
        _make("kubernetes")
    assert "knative" in str(caught.value.hint)


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("target_utilisation", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_utilisation_is_a_share(name: str, target_utilisation: float) -> None:
    with pytest.raises(InvalidInputError, match="target_utilisation"):
        _make(name, target_utilisation=target_utilisation)


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize(("least", "most"), [(3, 2), (-1, 2), (0, 0)])
def test_bounds_that_are_none(name: str, least: int, most: int) -> None:
    with pytest.raises(InvalidInputError, match="no bounds"):
        _make(name, least=least, most=most)


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("late_s", [0.0, 5.0, 1e6])
def test_what_comes_late_changes_nothing(name: str, late_s: float) -> None:
    policy = _make(name)
    for step in range(6):
        policy.decide(observed(10.0 * step, ready=3, in_flight=30.0, rate=6.0, kv_cache_use=0.4))
    before = policy.snapshot()
    policy.decide(observed(50.0 - late_s, ready=19, in_flight=9000.0, rate=900.0, kv_cache_use=1.0))
    assert policy.snapshot() == before


def test_naming_them_loads_none() -> None:
    code = (
        "import sys; import textnlp_fast.gpu.scaling.rivals as rivals; "
        "loaded = [n for n in sys.modules if n.startswith(rivals.__name__ + '.') or n in ('ray', 'numpy', 'sky')]; "
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
