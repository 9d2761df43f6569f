"""The guide of the clouds: its examples run, and what it names is there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes.sky import FakeSky
from textnlp_fast import errors
from textnlp_fast.gpu.providers import azure_errors, gcp_errors
from textnlp_fast.gpu.providers.contract import Provider

GUIDE = (Path(__file__).parents[3] / "docs" / "guide" / "gpu-clouds.md").read_text(encoding="utf-8")


def test_providers_are_registered_as_the_guide_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("google.cloud.compute_v1", reason="needs google-cloud-compute")
    pytest.importorskip("azure.mgmt.network", reason="needs azure-mgmt-network")
    monkeypatch.setitem(sys.modules, "sky", FakeSky())
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    places = []
    for block in blocks:
        exec(compile(block, "gpu-clouds.md", "exec"), names)
        places.append(sorted("/".join(place) for place in names["manager"].places))
    assert places == [
        ["gcp/us-central1"],
        ["azure/westeurope"],
        ["azure/westeurope", "skypilot/lambda/us-east-1"],
    ]


def test_errors_and_codes_of_the_guide_are_the_codes_own() -> None:
    table = GUIDE.partition("## When it goes wrong")[2]
    for name in re.findall(r"^\| (\w+Error)", table, re.MULTILINE):
        assert issubclass(getattr(errors, name), errors.TextnlpFastError)
    for code in ("ZONE_RESOURCE_POOL_EXHAUSTED", "VM_MIN_COUNT_NOT_REACHED"):
        told = gcp_errors.operation_error([(code, "x")], action="a", place="p")
        assert code in table and type(told) is errors.CapacityError
    for code in ("AllocationFailed", "SkuNotAvailable"):
        told = azure_errors.error_of_code(code, "x", action="a", place="p")
        assert code in table and type(told) is errors.CapacityError
    assert Provider.launch.__doc__
