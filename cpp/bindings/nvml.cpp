#include "textnlp_fast/nvml.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bindings.h"

namespace textnlp_fast::bindings {
namespace {

// A wait is cut into pieces, so that Ctrl-C is heard.
constexpr double kPieceS = 0.2;

template <class Value>
void put(py::dict& out, const char* name, const std::optional<Value>& value) {
  if (value) {
    out[name] = py::cast(*value);
  } else {
    out[name] = py::none();
  }
}

py::dict to_dict(const nvml::Reading& reading) {
  py::dict out;
  out["gpu"] = reading.gpu;
  out["index"] = reading.index;
  out["at_s"] = reading.at_s;
  put(out, "name", reading.name);
  put(out, "pci_bus_id", reading.pci_bus_id);
  put(out, "utilisation_percent", reading.utilisation_percent);
  put(out, "memory_used_bytes", reading.memory_used_bytes);
  put(out, "memory_total_bytes", reading.memory_total_bytes);
  put(out, "temperature_c", reading.temperature_c);
  put(out, "temperature_margin_c", reading.temperature_margin_c);
  put(out, "memory_temperature_c", reading.memory_temperature_c);
  put(out, "power_w", reading.power_w);
  put(out, "power_limit_w", reading.power_limit_w);
  put(out, "sm_clock_mhz", reading.sm_clock_mhz);
  put(out, "memory_clock_mhz", reading.memory_clock_mhz);
  put(out, "throttle_reasons", reading.throttle_reasons);
  put(out, "ecc_corrected", reading.ecc_corrected);
  put(out, "ecc_uncorrected", reading.ecc_uncorrected);
  put(out, "remapped_rows_corrected", reading.remapped_rows_corrected);
  put(out, "remapped_rows_uncorrected", reading.remapped_rows_uncorrected);
  put(out, "remap_pending", reading.remap_pending);
  put(out, "remap_failed", reading.remap_failed);
  put(out, "retired_pages_pending", reading.retired_pages_pending);
  put(out, "nvlink_links_up", reading.nvlink_links_up);
  put(out, "nvlink_links", reading.nvlink_links);
  put(out, "nvlink_errors", reading.nvlink_errors);
  put(out, "pcie_replays", reading.pcie_replays);
  put(out, "pcie_width", reading.pcie_width);
  put(out, "pcie_width_max", reading.pcie_width_max);
  put(out, "pcie_generation", reading.pcie_generation);
  put(out, "pcie_generation_max", reading.pcie_generation_max);
  put(out, "recovery_action", reading.recovery_action);
  put(out, "fabric_state", reading.fabric_state);
  out["lost"] = reading.lost;
  out["error"] = reading.error.empty() ? py::object(py::none()) : py::object(py::str(reading.error));
  return out;
}

const char* kind_name(nvml::EventKind kind) {
  switch (kind) {
    case nvml::EventKind::xid: return "xid";
    case nvml::EventKind::sxid: return "sxid";
    case nvml::EventKind::gpu_count: return "gpu-count";
    case nvml::EventKind::driver_hung: return "driver-hung";
    case nvml::EventKind::driver_answers: return "driver-answers";
    case nvml::EventKind::driver_error: return "driver-error";
    case nvml::EventKind::driver_loaded: return "driver-loaded";
  }
  return "";
}

py::dict to_dict(const nvml::Event& event) {
  py::dict details;
  for (const auto& [name, value] : event.details) details[py::str(name)] = value;
  py::dict out;
  out["kind"] = kind_name(event.kind);
  out["at_s"] = event.at_s;
  out["gpu"] = event.gpu.empty() ? py::object(py::none()) : py::object(py::str(event.gpu));
  put(out, "code", event.code);
  out["text"] = event.text;
  out["source"] = event.source;
  out["details"] = details;
  return out;
}

template <class Item>
py::list to_list(const std::vector<Item>& items) {
  py::list out;
  for (const Item& item : items) out.append(to_dict(item));
  return out;
}

double timeout_of(double timeout_s) {
  if (std::isnan(timeout_s) || timeout_s < 0) refuse("timeout_s", "must not be negative");
  return std::min(timeout_s, 1e9);
}

class NvmlCollector {
 public:
  NvmlCollector(const py::object& library, double period_s, double slow_period_s, double deadline_s, double reinit_s,
                const py::object& kernel_log, bool kernel_log_from_start, double same_event_s) {
    nvml::Options options;
    if (!library.is_none()) options.library = py::cast<std::string>(library);
    options.period_s = period_s;
    options.slow_period_s = slow_period_s;
    options.deadline_s = deadline_s;
    options.reinit_s = reinit_s;
    options.kernel_log = kernel_log.is_none() ? std::string() : py::cast<std::string>(kernel_log);
    options.kernel_log_from_start = kernel_log_from_start;
    options.same_event_s = same_event_s;
    std::string why;
    Status status;
    {
      py::gil_scoped_release release;
      status = collector_.start(options, &why);
    }
    if (!status.ok() && !why.empty() && status.code == Code::device_error) {
      const py::object error = py::module_::import("textnlp_fast.errors").attr("DeviceError");
      const py::object instance = error(std::string(status.message) + ": " + why);
      PyErr_SetObject(error.ptr(), instance.ptr());
      throw py::error_already_set();
    }
    raise_if_failed(status);
  }

  // Without the GIL: a thread of the collector may be slow to end. Giving it up throws where pybind11 was never set up.
  ~NvmlCollector() {  // NOLINT(bugprone-exception-escape): it made this object
    py::gil_scoped_release release;
    collector_.stop(0.5);
  }
  NvmlCollector(const NvmlCollector&) = delete;
  NvmlCollector& operator=(const NvmlCollector&) = delete;

  py::list sample(double timeout_s) {
    timeout_s = timeout_of(timeout_s);
    std::vector<nvml::Reading> readings;
    Status status;
    {
      py::gil_scoped_release release;
      status = collector_.sample(timeout_s, &readings);
    }
    raise_if_failed(status);
    return to_list(readings);
  }

  py::list readings() {
    std::vector<nvml::Reading> readings;
    Status status;
    {
      py::gil_scoped_release release;
      status = collector_.readings(&readings);
    }
    raise_if_failed(status);
    return to_list(readings);
  }

  py::list events(double timeout_s) {
    timeout_s = timeout_of(timeout_s);
    std::vector<nvml::Event> events;
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
    while (true) {
      const std::chrono::duration<double> left = end - std::chrono::steady_clock::now();
      Status status;
      {
        py::gil_scoped_release release;
        status = collector_.events(std::clamp(left.count(), 0.0, kPieceS), &events);
      }
      raise_if_failed(status);
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!events.empty() || left.count() <= kPieceS) return to_list(events);
    }
  }

  py::dict state() {
    nvml::State state;
    Status status;
    {
      py::gil_scoped_release release;
      status = collector_.state(&state);
    }
    raise_if_failed(status);
    py::list notes;
    for (const std::string& note : state.notes) notes.append(note);
    py::dict out;
    out["library"] = state.library;
    out["driver_version"] = state.driver_version;
    out["library_version"] = state.library_version;
    out["ready"] = state.ready;
    out["hung"] = state.hung;
    out["paused"] = state.paused;
    out["error"] = state.error;
    out["notes"] = notes;
    out["gpu_count"] = state.gpu_count;
    out["rounds"] = state.rounds;
    out["events_dropped"] = state.events_dropped;
    out["kernel_log_missed"] = state.kernel_log_missed;
    out["threads"] = state.threads;
    return out;
  }

  bool pause(double timeout_s) {
    timeout_s = timeout_of(timeout_s);
    bool released = false;
    Status status;
    {
      py::gil_scoped_release release;
      status = collector_.pause(timeout_s, &released);
    }
    raise_if_failed(status);
    return released;
  }

  void resume() { raise_if_failed(collector_.resume()); }

  void stop(double grace_s) {
    grace_s = timeout_of(grace_s);
    py::gil_scoped_release release;
    collector_.stop(grace_s);
  }

 private:
  nvml::Collector collector_;
};

// The record and the error of a line of /dev/kmsg; None for a line that reports none.
py::object parse_line(const py::object& line) {
  const Buffer buffer(line, Buffer::Access::read, "line");
  const std::string_view text(reinterpret_cast<const char*>(buffer.data()), buffer.size());
  nvml::KernelRecord record;
  nvml::KernelError error;
  if (!nvml::parse_kernel_record(text, &record) || !nvml::parse_kernel_error(record.text, &error)) return py::none();
  py::dict out;
  out["priority"] = record.priority;
  out["sequence"] = record.sequence;
  out["time_us"] = record.time_us;
  out["nvswitch"] = error.nvswitch;
  out["code"] = error.code;
  out["pci_bus_id"] = error.pci_bus_id;
  out["text"] = error.text;
  put(out, "pid", error.pid);
  out["process"] = error.process;
  put(out, "fatal", error.fatal);
  put(out, "link", error.link);
  return out;
}

}  // namespace

void bind_nvml(py::module_& module) {
  py::class_<NvmlCollector>(module, "NvmlCollector")
      .def(py::init<const py::object&, double, double, double, double, const py::object&, bool, double>(),
           py::arg("library"), py::arg("period_s"), py::arg("slow_period_s"), py::arg("deadline_s"),
           py::arg("reinit_s"), py::arg("kernel_log"), py::arg("kernel_log_from_start"), py::arg("same_event_s"))
      .def("sample", &NvmlCollector::sample, py::arg("timeout_s"))
      .def("readings", &NvmlCollector::readings)
      .def("events", &NvmlCollector::events, py::arg("timeout_s"))
      .def("state", &NvmlCollector::state)
      .def("pause", &NvmlCollector::pause, py::arg("timeout_s"))
      .def("resume", &NvmlCollector::resume)
      .def("stop", &NvmlCollector::stop, py::arg("grace_s"));
  module.def("nvml_threads_left_behind", &nvml::threads_left_behind);
  module.def("nvml_parse_line", &parse_line, py::arg("line"));
}

}  // namespace textnlp_fast::bindings
