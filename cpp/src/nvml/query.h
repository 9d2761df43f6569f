// What is asked of one GPU, and how its answers are taken.
#pragma once
#include <bitset>
#include <optional>
#include <string>
#include <vector>

#include "nvml/api.h"
#include "nvml/slot.h"
#include "textnlp_fast/nvml.h"

namespace textnlp_fast::nvml {

enum class Query : std::uint8_t {
  utilization,
  memory_v2,
  memory,
  temperature_v,
  temperature,
  threshold_max,
  threshold_slowdown,
  margin,
  power,
  clock_sm,
  clock_memory,
  clocks_event_reasons,
  fast_fields,
  enforced_power_limit,
  power_limit,
  ecc_corrected,
  ecc_uncorrected,
  remapped_rows,
  retired_pages,
  pcie_replays,
  pcie_width,
  pcie_width_max,
  pcie_generation,
  pcie_generation_max,
  fabric_v,
  fabric,
  slow_fields,
  link_state,
  link_fields,
  link_errors,
  count,
};

// What is remembered of a GPU from one round to the next.
struct Known {
  std::bitset<static_cast<std::size_t>(Query::count)> unsupported;  // not asked again until everything is
  std::vector<bool> fields_unsupported;                             // of the links, by place in the batch
  std::string slow_error;                                           // of the last time that the slow ones were asked
};

// Asks `device` and writes the answers to `reading`, whose name, index and moment it leaves as they are. The slow
// values stay as they were unless `slow`. `everything` asks what was unsupported before, too.
void query_device(const Api& api, Slot& slot, abi::Device device, bool slow, bool everything, Known* known,
                  Reading* reading);

// A string of the driver's as printable ASCII, whatever it holds and however it ends.
std::string printable(const char* text, std::size_t most);

// A PCI address as NVML writes it: 00000000:3B:00.0.
std::string format_pci(unsigned domain, unsigned bus, unsigned device);

// Who the device is. What fails is left empty; returns the first error.
struct Identity {
  std::string uuid;
  std::string name;
  std::string pci_bus_id;
};
abi::Return identify(const Api& api, Slot& slot, abi::Device device, Identity* out);

}  // namespace textnlp_fast::nvml
