#include "nvml/query.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <type_traits>

namespace textnlp_fast::nvml {
namespace {

constexpr std::size_t kMostErrors = 3;
constexpr unsigned kUnknown32 = std::numeric_limits<unsigned>::max();
constexpr unsigned long long kUnknown64 = std::numeric_limits<unsigned long long>::max();

// An answer of a GPU that has not got the thing, or of a driver too old or too new for the question: no error of
// either.
bool only_missing(abi::Return code) noexcept {
  return code == abi::kNotSupported || code == abi::kFunctionNotFound || code == abi::kArgumentVersionMismatch ||
         code == abi::kDeprecated || code == abi::kNoData;
}

class Asker {
 public:
  Asker(const Api& api, Slot& slot, abi::Device device, Known* known, Reading* reading)
      : api_(api), slot_(slot), device_(device), known_(known), reading_(reading) {}

  void fast();
  void slow();
  std::string take_errors();
  [[nodiscard]] bool lost() const noexcept { return lost_; }

 private:
  // True if the call succeeded. Once the GPU is lost, or let a call wait past the deadline, nothing more is asked.
  template <class... Parameters>
  bool ask(Query query, const char* name, abi::Return (*function)(abi::Device, Parameters...),
           std::type_identity_t<Parameters>... arguments) {
    return judge(query, name, call(query, name, function, arguments...));
  }

  template <class... Parameters>
  abi::Return call(Query query, const char* name, abi::Return (*function)(abi::Device, Parameters...),
                   std::type_identity_t<Parameters>... arguments) {
    if (function == nullptr || lost_ || late_ || known_->unsupported.test(static_cast<std::size_t>(query))) {
      return abi::kNotSupported;
    }
    abi::Return code = abi::kUnknown;
    if (!slot_.run(name, [&] { code = function(device_, arguments...); })) {
      late_ = true;
      add_error(std::string(name) + " answered too late");
      return abi::kNotSupported;
    }
    return code;
  }

  bool judge(Query query, const char* name, abi::Return code) {
    if (code == abi::kSuccess) return true;
    if (only_missing(code)) {
      if (!lost_ && !late_) known_->unsupported.set(static_cast<std::size_t>(query));
      return false;
    }
    if (code == abi::kGpuIsLost) lost_ = true;
    add_error(std::string(name) + ": " + describe(code) + " (" + std::to_string(code) + ")");
    return false;
  }

  // A number that no GPU can mean is no value, and worth a word.
  template <class Number, class Value>
  void take(const char* what, Number number, double least, double most, double scale, std::optional<Value>* out) {
    const double value = static_cast<double>(number) * scale;
    if (!std::isfinite(value) || value < least || value > most) {
      char text[96];
      std::snprintf(text, sizeof text, "%s of %g makes no sense", what, value);
      add_error(text);
      return;
    }
    *out = static_cast<Value>(std::is_same_v<Value, double> ? value : static_cast<double>(number));
  }

  void add_error(const std::string& error) {
    ++error_count_;
    if (errors_.size() < kMostErrors) errors_.push_back(error);
  }

  void counter(Query query, const char* name, abi::Return (*function)(abi::Device, unsigned*), const char* what,
               double most, std::optional<std::uint64_t>* out) {
    unsigned value = 0;
    if (ask(query, name, function, &value)) take(what, value, 0, most, 1, out);
  }

  void memory();
  void temperature();
  void clock(Query query, std::int32_t type, const char* what, std::optional<double>* out);
  void ecc(Query query, std::int32_t type, std::optional<std::uint64_t>* out);
  void power_limit();
  void remapped_rows();
  void fabric();
  void fields();
  void links(std::optional<std::uint64_t> count);
  void link_errors(unsigned links);
  bool field(const abi::FieldValue& value, double* out);
  void field_counter(const abi::FieldValue& value, const char* what, double most, std::optional<std::uint64_t>* out);
  bool ask_fields(Query query, std::vector<abi::FieldValue>* fields);

  const Api& api_;
  Slot& slot_;
  abi::Device device_;
  Known* known_;
  Reading* reading_;
  bool lost_ = false;
  bool late_ = false;
  std::size_t error_count_ = 0;
  std::vector<std::string> errors_;
};

abi::FieldValue asked(unsigned field, unsigned scope = 0) {
  abi::FieldValue value{};
  value.field = field;
  value.scope = scope;
  // A library that answers for fewer fields than it was given must not look as if the rest were zero.
  value.status = abi::kNotSupported;
  return value;
}

constexpr double kMostCount = 9.0e18;
constexpr double kMostCount32 = 4294967294.0;  // all ones are what hardware that is gone reads as

void Asker::memory() {
  abi::MemoryV2 v2{};
  v2.version = abi::struct_version<abi::MemoryV2>(2);
  unsigned long long used = 0;
  unsigned long long total = 0;
  if (ask(Query::memory_v2, "nvmlDeviceGetMemoryInfo_v2", api_.memory_v2, &v2)) {
    used = v2.used;
    total = v2.total;
  } else {
    abi::Memory v1{};
    if (!ask(Query::memory, "nvmlDeviceGetMemoryInfo", api_.memory, &v1)) return;
    used = v1.used;
    total = v1.total;
  }
  if (used > total || total == kUnknown64) {
    add_error("memory of " + std::to_string(used) + " of " + std::to_string(total) + " bytes makes no sense");
    return;
  }
  reading_->memory_used_bytes = used;
  reading_->memory_total_bytes = total;
}

void Asker::temperature() {
  abi::TemperatureV1 v1{};
  v1.version = abi::struct_version<abi::TemperatureV1>(1);
  v1.sensor = abi::kSensorGpu;
  unsigned old = 0;
  if (ask(Query::temperature_v, "nvmlDeviceGetTemperatureV", api_.temperature_v, &v1)) {
    take("a temperature", v1.temperature, -100, 250, 1, &reading_->temperature_c);
  } else if (ask(Query::temperature, "nvmlDeviceGetTemperature", api_.temperature, abi::kSensorGpu, &old)) {
    take("a temperature", old, -100, 250, 1, &reading_->temperature_c);
  }
  abi::MarginTemperatureV1 margin{};
  margin.version = abi::struct_version<abi::MarginTemperatureV1>(1);
  if (ask(Query::margin, "nvmlDeviceGetMarginTemperature", api_.margin_temperature, &margin)) {
    take("a temperature margin", margin.margin_temperature, -250, 250, 1, &reading_->temperature_margin_c);
    return;
  }
  // GPUs before Ada do not tell the margin; the temperature at which they slow down less the present one is it.
  if (!reading_->temperature_c) return;
  unsigned threshold = 0;
  if (ask(Query::threshold_max, "nvmlDeviceGetTemperatureThreshold", api_.temperature_threshold, abi::kThresholdGpuMax,
          &threshold) ||
      ask(Query::threshold_slowdown, "nvmlDeviceGetTemperatureThreshold", api_.temperature_threshold,
          abi::kThresholdSlowdown, &threshold)) {
    take("a temperature margin", static_cast<double>(threshold) - *reading_->temperature_c, -250, 250, 1,
         &reading_->temperature_margin_c);
  }
}

void Asker::clock(Query query, std::int32_t type, const char* what, std::optional<double>* out) {
  unsigned mhz = 0;
  if (ask(query, "nvmlDeviceGetClockInfo", api_.clock, type, &mhz)) take(what, mhz, 0, 100'000, 1, out);
}

void Asker::fast() {
  abi::Utilization utilization{};
  if (ask(Query::utilization, "nvmlDeviceGetUtilizationRates", api_.utilization, &utilization)) {
    take("a utilisation", utilization.gpu, 0, 100, 1, &reading_->utilisation_percent);
  }
  memory();
  temperature();
  std::vector<abi::FieldValue> fields{asked(abi::kFieldMemoryTemperature)};
  double value = 0;
  if (ask_fields(Query::fast_fields, &fields) && field(fields[0], &value)) {
    take("a memory temperature", value, -100, 250, 1, &reading_->memory_temperature_c);
  }
  unsigned milliwatts = 0;
  if (ask(Query::power, "nvmlDeviceGetPowerUsage", api_.power, &milliwatts)) {
    take("a power", milliwatts, 0, 100'000, 1e-3, &reading_->power_w);
  }
  clock(Query::clock_sm, abi::kClockSm, "an SM clock", &reading_->sm_clock_mhz);
  clock(Query::clock_memory, abi::kClockMemory, "a memory clock", &reading_->memory_clock_mhz);
  unsigned long long reasons = 0;
  if (ask(Query::clocks_event_reasons, "nvmlDeviceGetCurrentClocksEventReasons", api_.clocks_event_reasons, &reasons)) {
    if (reasons == kUnknown64) {
      add_error("all reasons for slow clocks at once make no sense");
    } else {
      reading_->throttle_reasons = reasons;
    }
  }
}

void Asker::ecc(Query query, std::int32_t type, std::optional<std::uint64_t>* out) {
  unsigned long long errors = 0;
  if (!ask(query, "nvmlDeviceGetTotalEccErrors", api_.ecc_errors, type, abi::kCounterVolatile, &errors)) return;
  if (errors == kUnknown64) {
    add_error("a count of ECC errors makes no sense");
    return;
  }
  *out = errors;
}

void Asker::power_limit() {
  unsigned milliwatts = 0;
  if (ask(Query::enforced_power_limit, "nvmlDeviceGetEnforcedPowerLimit", api_.enforced_power_limit, &milliwatts) ||
      ask(Query::power_limit, "nvmlDeviceGetPowerManagementLimit", api_.power_limit, &milliwatts)) {
    take("a power limit", milliwatts, 0, 100'000, 1e-3, &reading_->power_limit_w);
  }
}

void Asker::remapped_rows() {
  unsigned corrected = 0;
  unsigned uncorrected = 0;
  unsigned pending = 0;
  unsigned failed = 0;
  if (!ask(Query::remapped_rows, "nvmlDeviceGetRemappedRows", api_.remapped_rows, &corrected, &uncorrected, &pending,
           &failed)) {
    return;
  }
  if (corrected == kUnknown32 || uncorrected == kUnknown32) {
    add_error("a count of remapped rows makes no sense");
    return;
  }
  reading_->remapped_rows_corrected = corrected;
  reading_->remapped_rows_uncorrected = uncorrected;
  reading_->remap_pending = pending != 0;
  reading_->remap_failed = failed != 0;
}

void Asker::fabric() {
  abi::FabricInfoV3 info{};
  bool known = false;
  // One function for both versions: a driver that knows only the older refuses the newer by its version.
  info.version = abi::struct_version<abi::FabricInfoV3>(3);
  abi::Return code = call(Query::fabric_v, "nvmlDeviceGetGpuFabricInfoV", api_.fabric_info_v, &info);
  if (code == abi::kArgumentVersionMismatch || code == abi::kInvalidArgument) {
    abi::FabricInfoV2 v2{};
    v2.version = abi::struct_version<abi::FabricInfoV2>(2);
    code = call(Query::fabric_v, "nvmlDeviceGetGpuFabricInfoV", api_.fabric_info_v, &v2);
    info = {};
    info.status = v2.status;
    info.state = v2.state;
  }
  known = judge(Query::fabric_v, "nvmlDeviceGetGpuFabricInfoV", code);
  if (!known) {
    abi::FabricInfo v1{};
    known = ask(Query::fabric, "nvmlDeviceGetGpuFabricInfo", api_.fabric_info, &v1);
    info.status = v1.status;
    info.state = v1.state;
    info.health_summary = 0;
  }
  if (!known || info.state == abi::kFabricNotSupported) return;
  if (info.state == abi::kFabricNotStarted) {
    reading_->fabric_state = "not-started";
  } else if (info.state == abi::kFabricInProgress) {
    reading_->fabric_state = "in-progress";
  } else if (info.state != abi::kFabricCompleted) {
    add_error("fabric state " + std::to_string(info.state) + " makes no sense");
  } else if (info.status != abi::kSuccess) {
    reading_->fabric_state = "failed";
  } else if (info.health_summary == abi::kFabricUnhealthy) {
    reading_->fabric_state = "unhealthy";
  } else if (info.health_summary == abi::kFabricLimited) {
    reading_->fabric_state = "limited-capacity";
  } else {
    reading_->fabric_state = "completed";
  }
}

bool Asker::ask_fields(Query query, std::vector<abi::FieldValue>* fields) {
  return !fields->empty() &&
         ask(query, "nvmlDeviceGetFieldValues", api_.field_values, static_cast<int>(fields->size()), fields->data());
}

bool Asker::field(const abi::FieldValue& value, double* out) {
  if (value.status != abi::kSuccess) {
    if (value.status == abi::kGpuIsLost) lost_ = true;
    if (!only_missing(value.status) && value.status != abi::kInvalidArgument) {
      add_error("field " + std::to_string(value.field) + ": " + describe(value.status) + " (" +
                std::to_string(value.status) + ")");
    }
    return false;
  }
  switch (value.value_type) {
    case abi::kTypeDouble: *out = value.value.as_double; return true;
    case abi::kTypeUnsigned: *out = value.value.as_unsigned; return true;
    case abi::kTypeUnsignedLong: *out = static_cast<double>(value.value.as_unsigned_long); return true;
    case abi::kTypeUnsignedLongLong: *out = static_cast<double>(value.value.as_unsigned_long_long); return true;
    case abi::kTypeLongLong: *out = static_cast<double>(value.value.as_long_long); return true;
    case abi::kTypeInt: *out = value.value.as_int; return true;
    case abi::kTypeUnsignedShort: *out = value.value.as_unsigned_short; return true;
    default: add_error("field " + std::to_string(value.field) + " has a type that is not known here"); return false;
  }
}

void Asker::field_counter(const abi::FieldValue& value, const char* what, double most,
                          std::optional<std::uint64_t>* out) {
  double number = 0;
  if (field(value, &number)) take(what, number, 0, most, 1, out);
}

void Asker::fields() {
  std::vector<abi::FieldValue> fields{asked(abi::kFieldLinkCount), asked(abi::kFieldRecoveryAction)};
  const bool replays = api_.pcie_replays == nullptr;
  const bool rows = api_.remapped_rows == nullptr;
  if (replays) fields.push_back(asked(abi::kFieldPcieReplays));
  if (rows) {
    for (const unsigned id : {abi::kFieldRemappedCorrected, abi::kFieldRemappedUncorrected, abi::kFieldRemappedPending,
                              abi::kFieldRemappedFailure}) {
      fields.push_back(asked(id));
    }
  }
  std::optional<std::uint64_t> count;
  if (ask_fields(Query::slow_fields, &fields)) {
    field_counter(fields[0], "a number of links", abi::kMostLinks, &count);
    field_counter(fields[1], "a recovery action", 255, &reading_->recovery_action);
    std::size_t next = 2;
    if (replays) field_counter(fields[next++], "a count of PCIe replays", kMostCount32, &reading_->pcie_replays);
    if (rows) {
      std::optional<std::uint64_t> pending;
      std::optional<std::uint64_t> failed;
      field_counter(fields[next], "a count of rows", kMostCount32, &reading_->remapped_rows_corrected);
      field_counter(fields[next + 1], "a count of rows", kMostCount32, &reading_->remapped_rows_uncorrected);
      field_counter(fields[next + 2], "a flag", kMostCount32, &pending);
      field_counter(fields[next + 3], "a flag", kMostCount32, &failed);
      if (pending) reading_->remap_pending = *pending != 0;
      if (failed) reading_->remap_failed = *failed != 0;
    }
  }
  links(count);
}

void Asker::links(std::optional<std::uint64_t> count) {
  const bool counted = count.has_value();
  unsigned links = counted ? static_cast<unsigned>(*count) : 0;
  unsigned up = 0;
  bool any = false;
  for (unsigned link = 0; link < (counted ? links : abi::kMostLinks); ++link) {
    std::int32_t active = 0;
    const abi::Return code = call(Query::link_state, "nvmlDeviceGetNvLinkState", api_.link_state, link, &active);
    // A link beyond the last is an invalid argument; without a count, that is how the last one is found.
    if (code == abi::kInvalidArgument || code == abi::kNotSupported) {
      if (!counted) break;
      continue;
    }
    if (!judge(Query::link_state, "nvmlDeviceGetNvLinkState", code)) break;
    any = true;
    if (!counted) links = link + 1;
    if (active != 0) ++up;
  }
  if (lost_ || late_) return;
  if (counted || any) reading_->nvlink_links = links;
  if (any || (counted && links == 0)) reading_->nvlink_links_up = up;
  if (links > 0) link_errors(links);
}

void Asker::link_errors(unsigned links) {
  constexpr unsigned kKinds[] = {abi::kFieldLinkReplays, abi::kFieldLinkCrc, abi::kFieldLinkRecoveries,
                                 abi::kFieldLinkRecoveryEvents};
  constexpr std::size_t kKindCount = std::size(kKinds);
  if (known_->fields_unsupported.size() != links * kKindCount) {
    known_->fields_unsupported.assign(links * kKindCount, false);
  }
  std::vector<abi::FieldValue> fields;
  std::vector<std::size_t> places;
  for (std::size_t place = 0; place < links * kKindCount; ++place) {
    if (known_->fields_unsupported[place]) continue;
    fields.push_back(asked(kKinds[place % kKindCount], static_cast<unsigned>(place / kKindCount)));
    places.push_back(place);
  }
  double sum = 0;
  bool any = false;
  std::vector<bool> recoveries(links, false);
  if (ask_fields(Query::link_fields, &fields)) {
    for (std::size_t each = 0; each < fields.size(); ++each) {
      const std::size_t kind = places[each] % kKindCount;
      const std::size_t link = places[each] / kKindCount;
      if (only_missing(fields[each].status) || fields[each].status == abi::kInvalidArgument) {
        known_->fields_unsupported[places[each]] = true;
        continue;
      }
      double value = 0;
      // Blackwell counts recoveries under another name; a driver that answers to both means the same ones.
      if (kKinds[kind] == abi::kFieldLinkRecoveryEvents && recoveries[link]) continue;
      if (!field(fields[each], &value)) continue;
      std::optional<double> sane;
      take("a count of link errors", value, 0, kMostCount, 1, &sane);
      if (!sane) continue;
      if (kKinds[kind] == abi::kFieldLinkRecoveries) recoveries[link] = true;
      sum += *sane;
      any = true;
    }
  }
  if (!any) {
    for (unsigned link = 0; link < links; ++link) {
      for (const std::int32_t kind :
           {abi::kLinkCounterReplay, abi::kLinkCounterRecovery, abi::kLinkCounterCrcFlit, abi::kLinkCounterCrcData}) {
        unsigned long long value = 0;
        const abi::Return code =
            call(Query::link_errors, "nvmlDeviceGetNvLinkErrorCounter", api_.link_errors, link, kind, &value);
        if (only_missing(code) || code == abi::kInvalidArgument) continue;
        if (!judge(Query::link_errors, "nvmlDeviceGetNvLinkErrorCounter", code) || value == kUnknown64) continue;
        sum += static_cast<double>(value);
        any = true;
      }
    }
  }
  if (any && sum < kMostCount) reading_->nvlink_errors = static_cast<std::uint64_t>(sum);
}

void Asker::slow() {
  power_limit();
  ecc(Query::ecc_corrected, abi::kErrorCorrected, &reading_->ecc_corrected);
  ecc(Query::ecc_uncorrected, abi::kErrorUncorrected, &reading_->ecc_uncorrected);
  remapped_rows();
  std::int32_t pending = 0;
  if (ask(Query::retired_pages, "nvmlDeviceGetRetiredPagesPendingStatus", api_.retired_pages_pending, &pending)) {
    reading_->retired_pages_pending = pending != 0;
  }
  counter(Query::pcie_replays, "nvmlDeviceGetPcieReplayCounter", api_.pcie_replays, "a count of PCIe replays",
          kMostCount32, &reading_->pcie_replays);
  counter(Query::pcie_width, "nvmlDeviceGetCurrPcieLinkWidth", api_.pcie_width, "a PCIe width", 64,
          &reading_->pcie_width);
  counter(Query::pcie_width_max, "nvmlDeviceGetMaxPcieLinkWidth", api_.pcie_width_max, "a PCIe width", 64,
          &reading_->pcie_width_max);
  counter(Query::pcie_generation, "nvmlDeviceGetCurrPcieLinkGeneration", api_.pcie_generation, "a PCIe generation", 16,
          &reading_->pcie_generation);
  counter(Query::pcie_generation_max, "nvmlDeviceGetMaxPcieLinkGeneration", api_.pcie_generation_max,
          "a PCIe generation", 16, &reading_->pcie_generation_max);
  fabric();
  fields();
}

std::string Asker::take_errors() {
  std::string all;
  for (const std::string& error : errors_) all += (all.empty() ? "" : "; ") + error;
  if (error_count_ > errors_.size()) all += "; and " + std::to_string(error_count_ - errors_.size()) + " more";
  errors_.clear();
  error_count_ = 0;
  return all;
}

// A reading without the values that are asked for anew.
Reading begin(const Reading& before, bool slow) {
  Reading next;
  if (!slow) next = before;
  next.index = before.index;
  next.at_s = before.at_s;
  next.gpu = before.gpu;
  next.name = before.name;
  next.pci_bus_id = before.pci_bus_id;
  next.utilisation_percent.reset();
  next.memory_used_bytes.reset();
  next.memory_total_bytes.reset();
  next.temperature_c.reset();
  next.temperature_margin_c.reset();
  next.memory_temperature_c.reset();
  next.power_w.reset();
  next.sm_clock_mhz.reset();
  next.memory_clock_mhz.reset();
  next.throttle_reasons.reset();
  next.lost = false;
  next.error.clear();
  return next;
}

}  // namespace

void query_device(const Api& api, Slot& slot, abi::Device device, bool slow, bool everything, Known* known,
                  Reading* reading) {
  if (everything) {
    known->unsupported.reset();
    known->fields_unsupported.clear();
  }
  *reading = begin(*reading, slow);
  Asker asker(api, slot, device, known, reading);
  asker.fast();
  std::string error = asker.take_errors();
  if (slow) {
    asker.slow();
    known->slow_error = asker.take_errors();
  }
  reading->lost = asker.lost();
  if (reading->lost && !slow) {
    // What was true of the links of a GPU that is gone is true no longer.
    *reading = begin(*reading, true);
    reading->lost = true;
  }
  if (!known->slow_error.empty()) error += (error.empty() ? "" : "; ") + known->slow_error;
  reading->error = std::move(error);
}

std::string printable(const char* text, std::size_t most) {
  std::string out;
  for (std::size_t each = 0; each < most && text[each] != '\0'; ++each) {
    out += text[each] >= ' ' && text[each] <= '~' ? text[each] : '?';
  }
  return out;
}

std::string format_pci(unsigned domain, unsigned bus, unsigned device) {
  char text[40];
  std::snprintf(text, sizeof text, "%08X:%02X:%02X.0", domain, bus, device);
  return text;
}

abi::Return identify(const Api& api, Slot& slot, abi::Device device, Identity* out) {
  abi::Return first = abi::kSuccess;
  const auto note = [&](abi::Return code) {
    if (first == abi::kSuccess) first = code;
    return code == abi::kSuccess;
  };
  const auto ask = [&](const char* name, const auto& body) {
    abi::Return code = abi::kFunctionNotFound;
    (void)slot.run(name, [&] { code = body(); });
    return note(code);
  };
  char text[abi::kUuidBytes] = {};
  if (api.uuid != nullptr && ask("nvmlDeviceGetUUID", [&] { return api.uuid(device, text, sizeof text); })) {
    out->uuid = printable(text, sizeof text);
  }
  char name[abi::kNameBytes] = {};
  if (api.name != nullptr && ask("nvmlDeviceGetName", [&] { return api.name(device, name, sizeof name); })) {
    out->name = printable(name, sizeof name);
  }
  abi::PciInfo pci{};
  if (api.pci_info != nullptr && ask("nvmlDeviceGetPciInfo", [&] { return api.pci_info(device, &pci); })) {
    out->pci_bus_id =
        pci.bus_id[0] != '\0' ? printable(pci.bus_id, sizeof pci.bus_id) : format_pci(pci.domain, pci.bus, pci.device);
  }
  return first;
}

}  // namespace textnlp_fast::nvml
