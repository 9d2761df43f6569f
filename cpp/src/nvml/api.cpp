#include "nvml/api.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

namespace textnlp_fast::nvml {
namespace {

// What the loader finds by itself, then where containers and WSL have it without telling the loader.
constexpr const char* kPlaces[] = {
    "libnvidia-ml.so.1",
    "libnvidia-ml.so",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
    "/usr/local/nvidia/lib64/libnvidia-ml.so.1",
    "/home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib64/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
};

// The first of the names that the library has: versions of one function that take the same arguments, newest first.
template <class Function, class... Names>
void find(void* library, Function** function, Names... names) {
  for (const char* name : {names...}) {
    if (void* symbol = dlsym(library, name)) {
      *function = reinterpret_cast<Function*>(symbol);
      return;
    }
  }
}

void find_all(void* library, Api* api) {
  find(library, &api->init_with_flags, "nvmlInitWithFlags");
  find(library, &api->init, "nvmlInit_v2", "nvmlInit");
  find(library, &api->shutdown, "nvmlShutdown");
  find(library, &api->driver_version, "nvmlSystemGetDriverVersion");
  find(library, &api->library_version, "nvmlSystemGetNVMLVersion");
  find(library, &api->count, "nvmlDeviceGetCount_v2", "nvmlDeviceGetCount");
  find(library, &api->by_index, "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex");
  find(library, &api->name, "nvmlDeviceGetName");
  find(library, &api->uuid, "nvmlDeviceGetUUID");
  find(library, &api->pci_info, "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2", "nvmlDeviceGetPciInfo");
  find(library, &api->utilization, "nvmlDeviceGetUtilizationRates");
  find(library, &api->memory, "nvmlDeviceGetMemoryInfo");
  find(library, &api->memory_v2, "nvmlDeviceGetMemoryInfo_v2");
  find(library, &api->temperature, "nvmlDeviceGetTemperature");
  find(library, &api->temperature_v, "nvmlDeviceGetTemperatureV");
  find(library, &api->temperature_threshold, "nvmlDeviceGetTemperatureThreshold");
  find(library, &api->margin_temperature, "nvmlDeviceGetMarginTemperature");
  find(library, &api->power, "nvmlDeviceGetPowerUsage");
  find(library, &api->enforced_power_limit, "nvmlDeviceGetEnforcedPowerLimit");
  find(library, &api->power_limit, "nvmlDeviceGetPowerManagementLimit");
  find(library, &api->clock, "nvmlDeviceGetClockInfo");
  find(library, &api->clocks_event_reasons, "nvmlDeviceGetCurrentClocksEventReasons",
       "nvmlDeviceGetCurrentClocksThrottleReasons");
  find(library, &api->ecc_errors, "nvmlDeviceGetTotalEccErrors");
  find(library, &api->remapped_rows, "nvmlDeviceGetRemappedRows");
  find(library, &api->retired_pages_pending, "nvmlDeviceGetRetiredPagesPendingStatus");
  find(library, &api->link_state, "nvmlDeviceGetNvLinkState");
  find(library, &api->link_errors, "nvmlDeviceGetNvLinkErrorCounter");
  find(library, &api->pcie_replays, "nvmlDeviceGetPcieReplayCounter");
  find(library, &api->pcie_width, "nvmlDeviceGetCurrPcieLinkWidth");
  find(library, &api->pcie_width_max, "nvmlDeviceGetMaxPcieLinkWidth");
  find(library, &api->pcie_generation, "nvmlDeviceGetCurrPcieLinkGeneration");
  find(library, &api->pcie_generation_max, "nvmlDeviceGetMaxPcieLinkGeneration");
  find(library, &api->fabric_info_v, "nvmlDeviceGetGpuFabricInfoV");
  find(library, &api->fabric_info, "nvmlDeviceGetGpuFabricInfo");
  find(library, &api->field_values, "nvmlDeviceGetFieldValues");
  find(library, &api->event_set_create, "nvmlEventSetCreate");
  find(library, &api->event_set_free, "nvmlEventSetFree");
  find(library, &api->event_set_wait, "nvmlEventSetWait_v2", "nvmlEventSetWait");
  find(library, &api->register_events, "nvmlDeviceRegisterEvents");
}

}  // namespace

Status load_api(const std::string& path, Api* api, std::string* found, std::string* why) {
  std::vector<const char*> places(std::begin(kPlaces), std::end(kPlaces));
  const char* named = std::getenv("TEXTNLP_FAST_NVML");
  if (!path.empty()) {
    places = {path.c_str()};
  } else if (named != nullptr && *named != '\0') {
    places = {named};
  }
  void* library = nullptr;
  std::string said;
  for (const char* place : places) {
    library = dlopen(place, RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) {
      *found = place;
      break;
    }
    // The first is the one that the loader looks for everywhere; what it says of the others adds nothing.
    if (said.empty()) {
      const char* error = dlerror();
      said = error != nullptr ? error : place;
    }
  }
  if (library == nullptr) {
    *why = said;
    return Status::failure(Code::device_error, "the NVIDIA driver's library cannot be opened");
  }
  find_all(library, api);
  if ((api->init == nullptr && api->init_with_flags == nullptr) || api->count == nullptr || api->by_index == nullptr) {
    *why = *found + " has no nvmlInit, nvmlDeviceGetCount or nvmlDeviceGetHandleByIndex";
    return Status::failure(Code::device_error, "this library is not NVML");
  }
  return {};
}

const char* describe(abi::Return code) noexcept {
  switch (code) {
    case 0: return "success";
    case 1: return "NVML is not initialised";
    case 2: return "invalid argument";
    case 3: return "not supported";
    case 4: return "no permission";
    case 5: return "already initialised";
    case 6: return "not found";
    case 7: return "insufficient size";
    case 8: return "external power cables are not attached";
    case 9: return "the NVIDIA driver is not loaded";
    case 10: return "timeout";
    case 11: return "the kernel found an interrupt issue with the GPU";
    case 12: return "a library was not found";
    case 13: return "function not found";
    case 14: return "the infoROM is corrupted";
    case 15: return "the GPU is lost";
    case 16: return "the GPU must be reset";
    case 17: return "blocked by the operating system";
    case 18: return "driver and library differ in version: load the new driver, or reboot";
    case 19: return "in use";
    case 20: return "insufficient memory";
    case 21: return "no data";
    case 22: return "not supported with vGPU and ECC";
    case 23: return "insufficient resources";
    case 24: return "frequency not supported";
    case 25: return "the driver does not know this version of the structure";
    case 26: return "deprecated";
    case 27: return "not ready";
    case 28: return "the GPU was not found";
    case 29: return "invalid state";
    case 999: return "unknown error";
    default: return "an error without a name here";
  }
}

}  // namespace textnlp_fast::nvml
