"""This machine's GPUs, by the contract's cases on a made-up inventory, and on the mock of the driver."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fakes.nvml.mock import MockNvml
from gpu.providers.contract_cases import ProviderContract
from gpu.providers.harness import Harness, request_for
from textnlp_fast import errors
from textnlp_fast.gpu import GPUType
from textnlp_fast.gpu.providers.contract import Provider
from textnlp_fast.gpu.providers.local import GPUS_TAG, LocalProvider
from textnlp_fast.gpu.providers.local_gpus import LocalGPU, gpu_type_of, gpus_of_driver

_HOLDER = "holder"


class LocalHarness(Harness):
    name = "local"
    region = "local"
    bad_region = "us-east-1"
    instance_type = "1x-nvidia-t4"
    other_type = "2x-nvidia-t4"
    bad_type = "1x-nvidia-b300"
    zone = "local"
    bad_zone = "us-east-1a"
    cannot: ClassVar[Mapping[str, str]] = {
        "spot": "nobody takes this machine away",
        "images": "nothing is booted",
        "user data": "nothing is booted",
        "disks": "nothing is booted",
        "quota": "its owner may have all of it",
        "throttling": "there is no server",
        "lost answers": "there is no server",
        "eventual consistency": "there is one file, under a lock",
        "credentials": "the file's permissions are all",
        "unknown prices": "it is known to cost nothing",
    }

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gpus = [LocalGPU(f"GPU-{place:04d}", GPUType.NVIDIA_T4, 15.0) for place in range(160)]

    def provider(self, *, region: str | None = None, **options: Any) -> Provider:
        return LocalProvider(region or self.region, state=self.folder, inventory=lambda: self.gpus, **options)

    def truth(self) -> dict[str, str | None]:
        import json  # noqa: PLC0415

        file = self.folder / "reservations.json"
        entries = json.loads(file.read_text())["entries"] if file.exists() else []
        return {
            one["instance_id"]: one["launch_id"]
            for one in entries
            if one["state"] != "terminated" and one["launch_id"] != _HOLDER
        }

    def heal(self) -> None:
        provider = self.provider()
        provider.terminate(
            [one.instance_id for one in provider.list_instances({}) if one.launch_id == _HOLDER]
        )

    def no_capacity(self) -> None:
        self.capacity(0)

    def capacity(self, count: int) -> None:
        """Another launch holds all GPUs but so many."""
        held = len(self.gpus) - count
        self.provider().launch(request_for(self, launch_id=_HOLDER, count=held, min_count=held))


@pytest.fixture
def harness(tmp_path: Path) -> LocalHarness:
    return LocalHarness(tmp_path / "state")


class TestContract(ProviderContract):
    pass


def test_no_gpu_is_given_twice(harness: LocalHarness) -> None:
    outcome = harness.provider().launch(request_for(harness, count=80, instance_type="2x-nvidia-t4"))
    given = [uuid for one in outcome.instances for uuid in one.tags[GPUS_TAG].split(",")]
    assert sorted(given) == [one.uuid for one in harness.gpus]
    with pytest.raises(errors.CapacityError):
        harness.provider().launch(request_for(harness))


def test_what_is_let_go_of_is_free(harness: LocalHarness) -> None:
    harness.gpus = harness.gpus[:1]
    provider = harness.provider()
    (first,) = provider.launch(request_for(harness)).instances
    provider.stop([first.instance_id])
    (second,) = provider.launch(request_for(harness)).instances
    assert second.tags[GPUS_TAG] == first.tags[GPUS_TAG]
    with pytest.raises(errors.CapacityError, match="another's"):
        provider.start([first.instance_id])
    provider.terminate([second.instance_id])
    provider.start([first.instance_id])


def test_processes_at_once_get_gpus_of_their_own(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from textnlp_fast.gpu import GPUType
        from textnlp_fast.gpu.providers.contract import LaunchRequest
        from textnlp_fast.gpu.providers.local import GPUS_TAG, LocalProvider
        from textnlp_fast.gpu.providers.local_gpus import LocalGPU
        gpus = [LocalGPU(f"GPU-{n}", GPUType.NVIDIA_T4, 15.0) for n in range(40)]
        provider = LocalProvider(state=sys.argv[1], inventory=lambda: gpus)
        for turn in range(10):
            request = LaunchRequest(launch_id=f"p{sys.argv[2]}-{turn}", instance_type="1x-nvidia-t4")
            print(provider.launch(request).instances[0].tags[GPUS_TAG])
        """
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(number)], stdout=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    given = [line for child in children for line in child.communicate(timeout=120)[0].split()]
    assert len(given) == len(set(given)) == 40


def test_a_broken_file_is_said(harness: LocalHarness) -> None:
    harness.provider().launch(request_for(harness))
    for text in ("", "{}", '{"format": 2, "entries": []}', '{"format": 1, "entries": [{}]}', "[" * 100_000):
        (harness.folder / "reservations.json").write_text(text)
        with pytest.raises(errors.CorruptDataError, match="reservations"):
            harness.provider().list_instances()
        with pytest.raises(errors.CorruptDataError):
            harness.provider().launch(request_for(harness))
        assert (harness.folder / "reservations.json").read_text() == text


def test_ended_ones_are_not_kept_for_ever(harness: LocalHarness) -> None:
    provider = harness.provider()
    for _ in range(11):
        outcome = provider.launch(request_for(harness, count=100, min_count=100))
        provider.terminate([one.instance_id for one in outcome.instances])
    assert len(provider.list_instances()) <= 1100


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Tesla T4", GPUType.NVIDIA_T4),
        ("NVIDIA T4G", GPUType.NVIDIA_T4G),
        ("NVIDIA A10", GPUType.NVIDIA_A10),
        ("NVIDIA A10G", GPUType.NVIDIA_A10G),
        ("NVIDIA A100-SXM4-40GB", GPUType.NVIDIA_A100_40GB),
        ("NVIDIA A100-SXM4-80GB", GPUType.NVIDIA_A100_80GB),
        ("NVIDIA A100 80GB PCIe", GPUType.NVIDIA_A100_80GB_PCIE),
        ("Tesla V100-SXM2-16GB", GPUType.NVIDIA_V100),
        ("Tesla V100-SXM2-32GB", GPUType.NVIDIA_V100_32GB),
        ("NVIDIA L4", GPUType.NVIDIA_L4),
        ("NVIDIA L40S", GPUType.NVIDIA_L40S),
        ("NVIDIA H100 80GB HBM3", GPUType.NVIDIA_H100),
        ("NVIDIA H100 PCIe", GPUType.NVIDIA_H100_PCIE),
        ("NVIDIA H100 NVL", GPUType.NVIDIA_H100_NVL),
        ("NVIDIA H200", GPUType.NVIDIA_H200),
        ("NVIDIA B200", GPUType.NVIDIA_B200),
        ("NVIDIA GB200", GPUType.NVIDIA_GB200),
        ("NVIDIA GeForce RTX 4090", None),
        ("", None),
    ],
)
def test_what_the_driver_calls_them(name: str, kind: GPUType | None) -> None:
    assert gpu_type_of(name) is kind


def test_the_drivers_gpus_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mock = MockNvml(tmp_path / "nvml", gpus=4)
    monkeypatch.setenv("TEXTNLP_FAST_NVML", str(mock.library))
    gpus = gpus_of_driver()
    assert len({one.uuid for one in gpus}) == 4
    provider = LocalProvider(state=tmp_path / "state")
    offers = provider.offers()
    assert sorted(one.instance_type.gpu_count for one in offers) == [1, 2, 3, 4]
    kind = next(one.instance_type.name for one in offers if one.instance_type.gpu_count == 3)
    from textnlp_fast.gpu.providers.contract import LaunchRequest  # noqa: PLC0415

    (instance,) = provider.launch(LaunchRequest(launch_id="mine", instance_type=kind)).instances
    assert instance.tags[GPUS_TAG].split(",") == [one.uuid for one in gpus[:3]]


def test_without_a_driver_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTNLP_FAST_NVML", str(tmp_path / "nowhere.so"))
    assert gpus_of_driver() == []
    provider = LocalProvider(state=tmp_path / "state")
    assert list(provider.offers()) == []
    assert provider.zones("1x-nvidia-t4") == []
