"""The manager over clients of Google, Microsoft and of EC2's fleets, killed at each step: no orphan, no double."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from gpu.providers.harness import Harness, eventually
from gpu.resources.fleets import PROVIDER_VERBS, STORE_VERBS, Crash, Steps
from textnlp_fast.config import Settings
from textnlp_fast.gpu import Catalog
from textnlp_fast.gpu.resources import AcquireRequest, GPUResourceManager
from textnlp_fast.gpu.resources.journal import Journal
from textnlp_fast.gpu.types import GPUType
from textnlp_fast.objectstore import open_store


@pytest.fixture(params=["gcp", "azure", "aws_fleet"])
def harness(request: pytest.FixtureRequest) -> Harness:
    cloud: Harness = request.getfixturevalue(request.param)
    return cloud


def _manager(harness: Harness, state: str, steps: Steps | None = None) -> GPUResourceManager:
    manager = GPUResourceManager(
        state=state, owner="fleet-a", settings=Settings(), catalog=Catalog.load("/nonexistent")
    )
    provider = harness.provider(image=harness.image)
    if steps is None:
        manager.add_provider(provider)
        return manager
    manager.add_provider(steps.around(provider, PROVIDER_VERBS))
    watched: Any = steps.around(manager.journal.store, STORE_VERBS)
    manager.journal.store = watched
    manager._failures._store = watched
    return manager


def _request(harness: Harness, key: str) -> AcquireRequest:
    market: Any = str(harness.market)
    return AcquireRequest(gpu_types=[GPUType.NVIDIA_T4], key=key, instances=2, market=market)


def _recorded(state: str) -> set[str]:
    return {
        one.instance_id
        for record in Journal(open_store(state)).records()
        for one in record.instances
        if one.state.alive
    }


def test_a_launch_that_died_at_any_step_is_one_launch(harness: Harness) -> None:
    steps = Steps()
    whole = f"memory://fleet-{uuid.uuid4().hex}"
    _manager(harness, whole).release(_manager(harness, whole, steps).acquire(_request(harness, "whole")))
    assert eventually(harness.truth, lambda found: not found) == {}
    assert "before launch" in steps.names
    for die_at in range(len(steps.names)):
        state = f"memory://fleet-{uuid.uuid4().hex}"
        # A key of its own for each: the cloud remembers which launches it has seen.
        request = _request(harness, f"train-{die_at}")
        with pytest.raises(Crash):
            _manager(harness, state, Steps(die_at)).acquire(request)
        manager = _manager(harness, state)
        found = {one.instance_id for one in manager.acquire(request)}
        where = f"died at step {die_at}, {steps.names[die_at]}"
        assert len(found) == 2, where
        assert set(harness.truth()) == found, where
        assert _recorded(state) == found, where
        assert manager.orphans().strays == (), where
        manager.release(found)
        assert eventually(harness.truth, lambda left: not left) == {}, where
        harness.forget()
