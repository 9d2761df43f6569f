"""The collector's own declarations of NVML's structures and numbers, compiled against NVIDIA's header."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fakes.nvml.mock import header_folder

ROOT = Path(__file__).parents[3]
SIZES = {
    "Utilization": "nvmlUtilization_t",
    "Memory": "nvmlMemory_t",
    "MemoryV2": "nvmlMemory_v2_t",
    "PciInfo": "nvmlPciInfo_t",
    "TemperatureV1": "nvmlTemperature_v1_t",
    "MarginTemperatureV1": "nvmlMarginTemperature_v1_t",
    "FabricInfo": "nvmlGpuFabricInfo_t",
    "FabricInfoV2": "nvmlGpuFabricInfo_v2_t",
    "FabricInfoV3": "nvmlGpuFabricInfo_v3_t",
    "Value": "nvmlValue_t",
    "FieldValue": "nvmlFieldValue_t",
    "EventData": "nvmlEventData_t",
    "Return": "nvmlReturn_t",
}
OFFSETS = {
    "Utilization": {"gpu": "gpu", "memory": "memory"},
    "Memory": {"total": "total", "free": "free", "used": "used"},
    "MemoryV2": {
        "version": "version",
        "total": "total",
        "reserved": "reserved",
        "free": "free",
        "used": "used",
    },
    "PciInfo": {
        "bus_id_legacy": "busIdLegacy",
        "domain": "domain",
        "bus": "bus",
        "device": "device",
        "bus_id": "busId",
    },
    "TemperatureV1": {"version": "version", "sensor": "sensorType", "temperature": "temperature"},
    "MarginTemperatureV1": {"version": "version", "margin_temperature": "marginTemperature"},
    "FabricInfo": {"status": "status", "state": "state"},
    "FabricInfoV2": {"version": "version", "status": "status", "state": "state", "health_mask": "healthMask"},
    "FabricInfoV3": {"status": "status", "state": "state", "health_summary": "healthSummary"},
    "FieldValue": {
        "field": "fieldId",
        "scope": "scopeId",
        "timestamp": "timestamp",
        "latency_us": "latencyUsec",
        "value_type": "valueType",
        "status": "nvmlReturn",
        "value": "value",
    },
    "EventData": {
        "device": "device",
        "type": "eventType",
        "data": "eventData",
        "gpu_instance": "gpuInstanceId",
        "compute_instance": "computeInstanceId",
    },
}
VALUES = {
    "kSuccess": "NVML_SUCCESS",
    "kUninitialized": "NVML_ERROR_UNINITIALIZED",
    "kInvalidArgument": "NVML_ERROR_INVALID_ARGUMENT",
    "kNotSupported": "NVML_ERROR_NOT_SUPPORTED",
    "kNoPermission": "NVML_ERROR_NO_PERMISSION",
    "kNotFound": "NVML_ERROR_NOT_FOUND",
    "kDriverNotLoaded": "NVML_ERROR_DRIVER_NOT_LOADED",
    "kTimeout": "NVML_ERROR_TIMEOUT",
    "kFunctionNotFound": "NVML_ERROR_FUNCTION_NOT_FOUND",
    "kGpuIsLost": "NVML_ERROR_GPU_IS_LOST",
    "kLibRmVersionMismatch": "NVML_ERROR_LIB_RM_VERSION_MISMATCH",
    "kNoData": "NVML_ERROR_NO_DATA",
    "kArgumentVersionMismatch": "NVML_ERROR_ARGUMENT_VERSION_MISMATCH",
    "kDeprecated": "NVML_ERROR_DEPRECATED",
    "kUnknown": "NVML_ERROR_UNKNOWN",
    "kInitNoGpus": "NVML_INIT_FLAG_NO_GPUS",
    "kNameBytes": "NVML_DEVICE_NAME_V2_BUFFER_SIZE",
    "kUuidBytes": "NVML_DEVICE_UUID_V2_BUFFER_SIZE",
    "kVersionBytes": "NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE",
    "kMostLinks": "NVML_NVLINK_MAX_LINKS",
    "kEventXid": "nvmlEventTypeXidCriticalError",
    "kSensorGpu": "NVML_TEMPERATURE_GPU",
    "kThresholdSlowdown": "NVML_TEMPERATURE_THRESHOLD_SLOWDOWN",
    "kThresholdGpuMax": "NVML_TEMPERATURE_THRESHOLD_GPU_MAX",
    "kClockSm": "NVML_CLOCK_SM",
    "kClockMemory": "NVML_CLOCK_MEM",
    "kErrorCorrected": "NVML_MEMORY_ERROR_TYPE_CORRECTED",
    "kErrorUncorrected": "NVML_MEMORY_ERROR_TYPE_UNCORRECTED",
    "kCounterVolatile": "NVML_VOLATILE_ECC",
    "kFieldMemoryTemperature": "NVML_FI_DEV_MEMORY_TEMP",
    "kFieldLinkCount": "NVML_FI_DEV_NVLINK_LINK_COUNT",
    "kFieldPcieReplays": "NVML_FI_DEV_PCIE_REPLAY_COUNTER",
    "kFieldRemappedCorrected": "NVML_FI_DEV_REMAPPED_COR",
    "kFieldRemappedUncorrected": "NVML_FI_DEV_REMAPPED_UNC",
    "kFieldRemappedPending": "NVML_FI_DEV_REMAPPED_PENDING",
    "kFieldRemappedFailure": "NVML_FI_DEV_REMAPPED_FAILURE",
    "kFieldLinkReplays": "NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY",
    "kFieldLinkRecoveries": "NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY",
    "kFieldLinkCrc": "NVML_FI_DEV_NVLINK_ERROR_DL_CRC",
    "kFieldLinkRecoveryEvents": "NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS",
    "kFieldRecoveryAction": "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
    "kLinkCounterReplay": "NVML_NVLINK_ERROR_DL_REPLAY",
    "kLinkCounterRecovery": "NVML_NVLINK_ERROR_DL_RECOVERY",
    "kLinkCounterCrcFlit": "NVML_NVLINK_ERROR_DL_CRC_FLIT",
    "kLinkCounterCrcData": "NVML_NVLINK_ERROR_DL_CRC_DATA",
    "kTypeDouble": "NVML_VALUE_TYPE_DOUBLE",
    "kTypeUnsigned": "NVML_VALUE_TYPE_UNSIGNED_INT",
    "kTypeUnsignedLong": "NVML_VALUE_TYPE_UNSIGNED_LONG",
    "kTypeUnsignedLongLong": "NVML_VALUE_TYPE_UNSIGNED_LONG_LONG",
    "kTypeLongLong": "NVML_VALUE_TYPE_SIGNED_LONG_LONG",
    "kTypeInt": "NVML_VALUE_TYPE_SIGNED_INT",
    "kTypeUnsignedShort": "NVML_VALUE_TYPE_UNSIGNED_SHORT",
    "kFabricNotSupported": "NVML_GPU_FABRIC_STATE_NOT_SUPPORTED",
    "kFabricNotStarted": "NVML_GPU_FABRIC_STATE_NOT_STARTED",
    "kFabricInProgress": "NVML_GPU_FABRIC_STATE_IN_PROGRESS",
    "kFabricCompleted": "NVML_GPU_FABRIC_STATE_COMPLETED",
    "kFabricUnhealthy": "NVML_GPU_FABRIC_HEALTH_SUMMARY_UNHEALTHY",
    "kFabricLimited": "NVML_GPU_FABRIC_HEALTH_SUMMARY_LIMITED_CAPACITY",
    "struct_version<ours::MemoryV2>(2)": "nvmlMemory_v2",
    "struct_version<ours::TemperatureV1>(1)": "nvmlTemperature_v1",
    "struct_version<ours::MarginTemperatureV1>(1)": "nvmlMarginTemperature_v1",
    "struct_version<ours::FabricInfoV2>(2)": "nvmlGpuFabricInfo_v2",
    "struct_version<ours::FabricInfoV3>(3)": "nvmlGpuFabricInfo_v3",
}


def program(values: dict[str, str]) -> str:
    checks = [f"sizeof(ours::{name}) == sizeof({theirs})" for name, theirs in SIZES.items()]
    checks += [
        f"offsetof(ours::{name}, {member}) == offsetof({SIZES[name]}, {theirs})"
        for name, members in OFFSETS.items()
        for member, theirs in members.items()
    ]
    checks += [
        f"static_cast<long long>(ours::{name}) == static_cast<long long>({theirs})"
        for name, theirs in values.items()
    ]
    lines = [f'static_assert({check}, "");' for check in checks]
    head = ["#include <cstddef>", "#include <nvml.h>", '#include "nvml/abi.h"']
    return "\n".join([*head, "namespace ours = textnlp_fast::nvml::abi;", *lines])


def compile_it(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    header = header_folder()
    if header is None or shutil.which("g++") is None:
        pytest.skip("needs g++ and the package nvidia-nvml-dev")
    source = folder / "abi.cpp"
    source.write_text(text)
    command = ["g++", "-std=c++20", "-fsyntax-only", f"-I{header}", f"-I{ROOT / 'cpp' / 'src'}", str(source)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_structures_and_numbers_are_nvidias(tmp_path: Path) -> None:
    done = compile_it(program(VALUES), tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_wrong_number_is_found(tmp_path: Path) -> None:
    done = compile_it(program({**VALUES, "kGpuIsLost": "NVML_ERROR_RESET_REQUIRED"}), tmp_path)
    assert done.returncode != 0
    assert "static assertion failed" in done.stderr


def test_every_constant_is_compared() -> None:
    declared = {
        word
        for line in (ROOT / "cpp/src/nvml/abi.h").read_text().splitlines()
        if line.startswith("inline constexpr")
        for word in line.replace(";", " ").split()
        if word.startswith("k")
    }
    assert declared <= set(VALUES)
