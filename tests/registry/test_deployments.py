"""Deployments: which version a target serves, the way back, and who is first."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from textnlp_fast.errors import (
    ConflictError,
    DeploymentNotFoundError,
)
from textnlp_fast.storage import Repository
from textnlp_fast.storage.registry.registry import Registry


def test_rollback_goes_to_the_version_before_again_and_again(registry: Registry) -> None:
    for version in ("1.0.0", "1.1.0", "1.1.0", "2.0.0"):
        registry.deploy("m", version, "eu", note="n" + version)
    assert registry.rollback("m", "eu").version == "1.1.0"
    assert registry.rollback("m", "eu").version == "1.0.0"
    with pytest.raises(DeploymentNotFoundError, match=r"serves 1\.0\.0 and served no other version"):
        registry.rollback("m", "eu")
    registry.deploy("m", "2.0.0", "eu")
    back = registry.rollback("m", "eu", note="errors")
    assert (back.version, back.by, back.note) == ("1.0.0", "alice", "errors")
    served = [change.detail["version"] for change in registry.deployment_history("m", "eu")][::-1]
    assert served == ["1.0.0", "1.1.0", "2.0.0", "1.1.0", "1.0.0", "2.0.0", "1.0.0"]


def test_rollback_can_name_how_far_back(registry: Registry) -> None:
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        registry.deploy("m", version, "eu")
    assert registry.rollback("m", "eu", to="1.0.0").version == "1.0.0"
    with pytest.raises(DeploymentNotFoundError, match=r"served not 2\.0\.0"):
        registry.rollback("m", "eu", to="2.0.0")


def test_rollback_passes_over_versions_that_are_gone(registry: Registry) -> None:
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        registry.deploy("m", version, "eu")
    registry.repository.store.delete("models/m/versions/1.1.0.json")
    assert registry.rollback("m", "eu").version == "1.0.0"


def test_deployments_keep_their_versions_and_the_way_back(registry: Registry) -> None:
    registry.deploy("m", "1.0.0", "eu")
    registry.deploy("m", "1.1.0", "eu")
    registry.deploy("m", "1.1.0", "us")
    assert registry.references("m").kept_versions() == {
        "1.1.0": ["deployed to eu", "deployed to us"],
        "1.0.0": ["what eu would roll back to"],
    }
    registry.set_deployment_state("m", "eu", "healthy")
    assert registry.deployments("m")["m"]["eu"].state == "healthy"
    registry.end_deployment("m", "eu")
    assert list(registry.deployments()["m"]) == ["us"]
    with pytest.raises(DeploymentNotFoundError, match="not deployed to 'eu'"):
        registry.set_deployment_state("m", "eu", "healthy")


class SlowDeployer(Registry):
    """Lets others in between what a call sees first and what it writes."""

    def __init__(self, repository: Repository, actor: str, barrier: threading.Barrier) -> None:
        super().__init__(repository, actor=actor)
        self._barrier = barrier
        self._first = threading.local()

    def _exists(self, name: str, version: str) -> bool:
        if not hasattr(self._first, "passed"):
            self._first.passed = True
            self._barrier.wait(60)
        return super()._exists(name, version)


@pytest.mark.parametrize("call", ["deploy", "rollback"])
def test_of_deployments_at_once_one_is_made_and_the_others_are_told(registry: Registry, call: str) -> None:
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        registry.deploy("m", version, "eu")
    barrier = threading.Barrier(16)

    def attempt(number: int) -> str:
        deployer = SlowDeployer(registry.repository, f"actor-{number}", barrier)
        try:
            if call == "rollback":
                deployer.rollback("m", "eu")
            else:
                deployer.deploy("m", "1.0.0" if number % 2 else "1.1.0", "eu")
        except ConflictError as error:
            assert "Nothing was changed" in error.hint
            return "conflict"
        return "done"

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(attempt, range(16)))
    assert outcomes.count("done") >= 1
    assert len(list(registry.deployment_history("m", "eu"))) == 3 + outcomes.count("done")
    if call == "rollback":
        assert outcomes.count("done") + outcomes.count("conflict") == 16


def test_deploying_can_ask_for_what_must_be_there(registry: Registry) -> None:
    registry.deploy("m", "1.0.0", "eu")
    with pytest.raises(ConflictError, match=r"serves 1\.0\.0, not 1\.1\.0"):
        registry.deploy("m", "2.0.0", "eu", expected="1.1.0")
    with pytest.raises(ConflictError, match="serves nothing"):
        registry.deploy("m", "2.0.0", "us", expected="1.1.0")
    registry.deploy("m", "2.0.0", "eu", expected="1.0.0")
