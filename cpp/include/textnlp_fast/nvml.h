// What the NVIDIA driver of this machine says of its GPUs, at a set period, and what it reports of itself: XIDs from
// the driver and from the kernel's log. The driver's library is opened at run time; its calls run on threads of their
// own, so that a driver that hangs never blocks a caller.
#pragma once
#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "textnlp_fast/status.h"

namespace textnlp_fast::nvml {

// One GPU at one moment. Without a value: the GPU, its driver or its library does not say, or says nonsense.
struct Reading {
  std::uint32_t index = 0;
  double at_s = 0;  // Unix time
  std::string gpu;  // UUID, or `index:N` while none is known
  std::optional<std::string> name;
  std::optional<std::string> pci_bus_id;

  // Asked for in every round.
  std::optional<double> utilisation_percent;
  std::optional<std::uint64_t> memory_used_bytes;
  std::optional<std::uint64_t> memory_total_bytes;
  std::optional<double> temperature_c;
  std::optional<double> temperature_margin_c;
  std::optional<double> memory_temperature_c;
  std::optional<double> power_w;
  std::optional<double> sm_clock_mhz;
  std::optional<double> memory_clock_mhz;
  std::optional<std::uint64_t> throttle_reasons;

  // Asked for in some rounds: see Options::slow_period_s.
  std::optional<double> power_limit_w;
  std::optional<std::uint64_t> ecc_corrected;
  std::optional<std::uint64_t> ecc_uncorrected;
  std::optional<std::uint64_t> remapped_rows_corrected;
  std::optional<std::uint64_t> remapped_rows_uncorrected;
  std::optional<bool> remap_pending;
  std::optional<bool> remap_failed;
  std::optional<bool> retired_pages_pending;
  std::optional<std::uint64_t> nvlink_links_up;
  std::optional<std::uint64_t> nvlink_links;
  std::optional<std::uint64_t> nvlink_errors;
  std::optional<std::uint64_t> pcie_replays;
  std::optional<std::uint64_t> pcie_width;
  std::optional<std::uint64_t> pcie_width_max;
  std::optional<std::uint64_t> pcie_generation;
  std::optional<std::uint64_t> pcie_generation_max;
  std::optional<std::uint64_t> recovery_action;
  std::optional<std::string> fabric_state;

  bool lost = false;
  std::string error;  // what the driver answered where it answered with an error; empty if it did not
};

enum class EventKind : std::uint8_t { xid, sxid, gpu_count, driver_hung, driver_answers, driver_error, driver_loaded };

struct Event {
  EventKind kind = EventKind::xid;
  double at_s = 0;  // Unix time
  std::string gpu;  // empty: no single one, or not known
  std::optional<std::int64_t> code;
  std::string text;
  const char* source = "nvml";  // or "kmsg"
  std::vector<std::pair<std::string, std::string>> details;
};

struct Options {
  std::string library;  // empty: TEXTNLP_FAST_NVML if that is set, else where drivers put it
  double period_s = 1;  // between rounds; 0: only when asked
  // Error counters, links and limits change rarely, and cost more calls than all the rest: they are asked for this
  // often, and at once when an XID names their GPU.
  double slow_period_s = 10;
  double deadline_s = 5;  // a call that takes longer is a driver that hangs
  double reinit_s = 60;   // while a GPU is lost, NVML is started anew this often: it sees one that was reset only then
  std::string kernel_log = "/dev/kmsg";  // empty: not read
  bool kernel_log_from_start = false;    // all that the kernel still holds, not only what is to come
  double same_event_s = 2;               // an XID that driver and kernel log report within this is one
};

struct State {
  std::string library;
  std::string driver_version;
  std::string library_version;
  bool ready = false;  // NVML is initialised
  bool hung = false;   // some call has been out for longer than the deadline
  bool paused = false;
  std::string error;               // why NVML is not initialised
  std::vector<std::string> notes;  // what this collector cannot see, and what to do about it
  std::uint32_t gpu_count = 0;
  std::uint64_t rounds = 0;
  std::uint64_t events_dropped = 0;     // the queue is bounded; the oldest went
  std::uint64_t kernel_log_missed = 0;  // records that the kernel dropped before they were read
  std::uint32_t threads = 0;            // of this collector
};

class Core;
struct Api;

// Thread-safe. After a fork the child has none of the threads: every call fails there, and destruction does nothing.
class Collector {
 public:
  Collector() = default;
  ~Collector() { stop(0.5); }
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;

  // Opens the library and starts the threads; waits for nothing of the driver. `why` says more of a failure.
  Status start(const Options& options, std::string* why);

  // The same with functions of the caller's in place of a library's; for tests.
  Status start_with(const Options& options, const Api& api, const std::string& library);

  // A round now, which asks every GPU for everything; waits for its end, at most `timeout_s`. Then as `readings`.
  Status sample(double timeout_s, std::vector<Reading>* out);

  // What is known, in order of index. A GPU whose call hangs has a reading of now that holds an error and no values.
  Status readings(std::vector<Reading>* out) const;

  // Takes the events that came since the last call; if there are none, waits for one, at most `timeout_s`.
  Status events(double timeout_s, std::vector<Event>* out);

  Status state(State* out) const;

  // Lets go of the driver, so that a GPU can be reset, until told to go on. Waits at most `timeout_s` and says by
  // `released` whether the driver was let go of.
  Status pause(double timeout_s, bool* released);
  Status resume();

  // Ends the threads. One that a hung driver holds for longer than `grace_s` is left behind: it ends when its call
  // returns. While too many of those wait in this process, none is started anew.
  void stop(double grace_s);

 private:
  template <class Body>
  Status guarded(const Body& body) const;

  mutable std::mutex mutex_;
  std::shared_ptr<Core> core_;
  std::atomic<pid_t> process_{0};
};

// Threads that collectors of this process left behind and that have not ended.
unsigned threads_left_behind() noexcept;

// A line of the kernel's log that reports a GPU's or an NVSwitch's error.
struct KernelError {
  bool nvswitch = false;
  std::uint32_t code = 0;
  std::string pci_bus_id;  // as NVML writes it: 00000000:3B:00.0
  std::string text;        // behind the code; printable ASCII, at most 512 bytes
  std::optional<std::uint64_t> pid;
  std::string process;
  std::optional<bool> fatal;          // of an NVSwitch's
  std::optional<std::uint32_t> link;  // of an NVSwitch's
};

// A record of /dev/kmsg: `priority,sequence,microseconds,flags;text`.
struct KernelRecord {
  std::uint32_t priority = 0;
  std::uint64_t sequence = 0;
  std::uint64_t time_us = 0;
  std::string_view text;
};

bool parse_kernel_record(std::string_view line, KernelRecord* out) noexcept;

// `text` is a record's. False: it reports none, or only adds to the line before (an NVSwitch's "Severity", "Data").
bool parse_kernel_error(std::string_view text, KernelError* out);

// The line by which the driver tells a GPU's UUID before its first XID.
bool parse_kernel_uuid(std::string_view text, std::string* pci_bus_id, std::string* uuid);

}  // namespace textnlp_fast::nvml
