// The driver's library, found and opened at run time. Functions that a driver lacks are null.
#pragma once
#include <string>

#include "nvml/abi.h"
#include "textnlp_fast/status.h"

namespace textnlp_fast::nvml {

struct Api {
  abi::Return (*init_with_flags)(unsigned) = nullptr;
  abi::Return (*init)() = nullptr;
  abi::Return (*shutdown)() = nullptr;
  abi::Return (*driver_version)(char*, unsigned) = nullptr;
  abi::Return (*library_version)(char*, unsigned) = nullptr;
  abi::Return (*count)(unsigned*) = nullptr;
  abi::Return (*by_index)(unsigned, abi::Device*) = nullptr;
  abi::Return (*name)(abi::Device, char*, unsigned) = nullptr;
  abi::Return (*uuid)(abi::Device, char*, unsigned) = nullptr;
  abi::Return (*pci_info)(abi::Device, abi::PciInfo*) = nullptr;

  abi::Return (*utilization)(abi::Device, abi::Utilization*) = nullptr;
  abi::Return (*memory)(abi::Device, abi::Memory*) = nullptr;
  abi::Return (*memory_v2)(abi::Device, abi::MemoryV2*) = nullptr;
  abi::Return (*temperature)(abi::Device, std::int32_t, unsigned*) = nullptr;
  abi::Return (*temperature_v)(abi::Device, abi::TemperatureV1*) = nullptr;
  abi::Return (*temperature_threshold)(abi::Device, std::int32_t, unsigned*) = nullptr;
  abi::Return (*margin_temperature)(abi::Device, abi::MarginTemperatureV1*) = nullptr;
  abi::Return (*power)(abi::Device, unsigned*) = nullptr;
  abi::Return (*enforced_power_limit)(abi::Device, unsigned*) = nullptr;
  abi::Return (*power_limit)(abi::Device, unsigned*) = nullptr;
  abi::Return (*clock)(abi::Device, std::int32_t, unsigned*) = nullptr;
  abi::Return (*clocks_event_reasons)(abi::Device, unsigned long long*) = nullptr;
  abi::Return (*ecc_errors)(abi::Device, std::int32_t, std::int32_t, unsigned long long*) = nullptr;
  abi::Return (*remapped_rows)(abi::Device, unsigned*, unsigned*, unsigned*, unsigned*) = nullptr;
  abi::Return (*retired_pages_pending)(abi::Device, std::int32_t*) = nullptr;
  abi::Return (*link_state)(abi::Device, unsigned, std::int32_t*) = nullptr;
  abi::Return (*link_errors)(abi::Device, unsigned, std::int32_t, unsigned long long*) = nullptr;
  abi::Return (*pcie_replays)(abi::Device, unsigned*) = nullptr;
  abi::Return (*pcie_width)(abi::Device, unsigned*) = nullptr;
  abi::Return (*pcie_width_max)(abi::Device, unsigned*) = nullptr;
  abi::Return (*pcie_generation)(abi::Device, unsigned*) = nullptr;
  abi::Return (*pcie_generation_max)(abi::Device, unsigned*) = nullptr;
  abi::Return (*fabric_info_v)(abi::Device, void*) = nullptr;
  abi::Return (*fabric_info)(abi::Device, abi::FabricInfo*) = nullptr;
  abi::Return (*field_values)(abi::Device, int, abi::FieldValue*) = nullptr;

  abi::Return (*event_set_create)(abi::EventSet*) = nullptr;
  abi::Return (*event_set_free)(abi::EventSet) = nullptr;
  abi::Return (*event_set_wait)(abi::EventSet, abi::EventData*, unsigned) = nullptr;
  abi::Return (*register_events)(abi::Device, unsigned long long, abi::EventSet) = nullptr;
};

// Opens the library: at `path`; if that is empty, at TEXTNLP_FAST_NVML; if that is not set, where drivers put it. It
// stays open for good, as a call into it may never return. On failure (device_error) `why` says which files were tried
// and what the loader said; else `found` is the name that opened.
Status load_api(const std::string& path, Api* api, std::string* found, std::string* why);

// NVML's own words for a code.
const char* describe(abi::Return code) noexcept;

}  // namespace textnlp_fast::nvml
