// What watches: the supervisor over the driver's calls, and those who wait for what the driver and the kernel report.
#include <time.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <limits>
#include <system_error>

#include "nvml/core.h"

namespace textnlp_fast::nvml {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
constexpr std::uint32_t kKernelFacilities = 8;  // priorities below are the kernel's own; a process writes others

std::int64_t in_ns(double seconds) { return static_cast<std::int64_t>(seconds * 1e9); }

std::string key_of(const std::string& pci_bus_id, std::int64_t code) {
  std::string key = pci_bus_id;
  std::transform(key.begin(), key.end(), key.begin(), [](unsigned char c) { return std::toupper(c); });
  return key + "/" + std::to_string(code);
}

// The moment of a record, whose stamp counts from the machine's start.
double moment_of(const KernelRecord& record) {
  timespec monotonic{};
  (void)clock_gettime(CLOCK_MONOTONIC, &monotonic);
  const double now_s = unix_s();
  const double age_s = static_cast<double>(monotonic.tv_sec) + static_cast<double>(monotonic.tv_nsec) * 1e-9 -
                       static_cast<double>(record.time_us) * 1e-6;
  return age_s > 0 && age_s < now_s ? now_s - age_s : now_s;
}

}  // namespace

void Core::supervise() {
  Lock lock(mutex_);
  std::int64_t next_round_ns = steady_ns();
  const std::int64_t period_ns = in_ns(options_.period_s);
  while (!stopping_) {
    reap();
    const std::int64_t now_ns = steady_ns();
    std::int64_t wake_ns = find_overdue(now_ns);
    const bool asked = full_wanted_ > full_taken_;
    const bool due = period_ns > 0 && now_ns >= next_round_ns;
    if (!paused_ && !in_round_ && !round_due_ && (asked || due)) {
      full_taken_ = full_wanted_;
      full_due_ = asked;
      round_due_ = true;
      for_workers_.notify_all();
      // Rounds that were missed are not made up for.
      if (due) next_round_ns = std::max(next_round_ns + period_ns, now_ns);
      wake_ns = std::min(wake_ns, now_ns + deadline_ns_);
    }
    if (period_ns > 0 && !in_round_ && !round_due_ && !paused_) wake_ns = std::min(wake_ns, next_round_ns);
    if (in_round_ || round_due_) wake_ns = std::min(wake_ns, now_ns + deadline_ns_);
    if (wake_ns == kNever) {
      for_supervisor_.wait(lock);
    } else {
      for_supervisor_.wait_for(lock, std::chrono::nanoseconds(std::max<std::int64_t>(wake_ns - steady_ns(), 0)));
    }
  }
}

// Declares calls overdue that are, and replaces the active worker if it is stuck in one GPU. When to look again.
std::int64_t Core::find_overdue(std::int64_t now_ns) {
  std::int64_t wake_ns = kNever;
  const auto look = [&](Slot& slot, Worker* worker, std::int64_t allowed_ns) {
    const std::int64_t since_ns = slot.since();
    if (since_ns == 0 || slot.overdue()) return;
    if (now_ns - since_ns >= allowed_ns) {
      declare_overdue(slot, worker, since_ns);
    } else {
      wake_ns = std::min(wake_ns, since_ns + allowed_ns);
    }
  };
  std::erase_if(workers_, [](const auto& worker) { return worker->replaced && worker->device == nullptr; });
  for (const auto& worker : workers_) look(worker->slot, worker.get(), deadline_ns_);
  const std::int64_t event_ns = deadline_ns_ + in_ns(kEventWaitMs * 1e-3);
  look(event_slot_, nullptr, event_ns);
  // Its calls follow each other and wake nobody: one that begins behind this look is to be found in time, too.
  if (events_attached_) wake_ns = std::min(wake_ns, now_ns + event_ns);
  Worker& active = *workers_.back();
  if (active.slot.overdue() && active.device != nullptr && workers_.size() <= kMostStuck) {
    try {
      spawn_worker();
      active.replaced = true;
      // The round goes on with another.
      in_round_ = false;
      round_due_ = true;
      for_workers_.notify_all();
    } catch (const std::system_error&) {
      note("no thread could be started in place of one that the driver holds");
    }
  }
  return wake_ns;
}

void Core::declare_overdue(Slot& slot, Worker* worker, std::int64_t since_ns) {
  const char* call = slot.call();
  if (!slot.declare_overdue(since_ns)) return;
  Event event;
  event.kind = EventKind::driver_hung;
  event.at_s = unix_s();
  if (worker != nullptr && worker->device != nullptr) event.gpu = worker->device->latest.gpu;
  char text[160];
  std::snprintf(text, sizeof text, "%s has not returned for %.1f s", call,
                static_cast<double>(steady_ns() - since_ns) * 1e-9);
  event.text = text;
  event.details.emplace_back("call", call);
  push(std::move(event));
}

void Core::watch_events() {
  Lock lock(mutex_);
  while (true) {
    for_events_.wait(lock, [this] { return stopping_ || (session_open_ && counted_); });
    if (stopping_) break;
    events_attached_ = true;
    for_supervisor_.notify_all();
    const std::uint64_t session = session_;
    watch_session(session, lock);
    events_attached_ = false;
    for_workers_.notify_all();
    // If the driver refuses, or the session has ended, wait for another.
    for_events_.wait(lock, [&] { return stopping_ || session_ != session; });
  }
  leave_driver(event_slot_, lock);
}

// Takes the events of one list of handles until there is another.
void Core::watch_session(std::uint64_t session, Lock& lock) {
  std::vector<abi::Device> handles;
  for (const auto& device : devices_) {
    if (device->handle != nullptr) handles.push_back(device->handle);
  }
  lock.unlock();
  abi::EventSet set = nullptr;
  abi::Return code = abi::kUnknown;
  (void)event_slot_.run("nvmlEventSetCreate", [&] { code = api_.event_set_create(&set); });
  std::size_t registered = 0;
  for (const abi::Device handle : handles) {
    if (code != abi::kSuccess) break;
    abi::Return each = abi::kUnknown;
    (void)event_slot_.run("nvmlDeviceRegisterEvents",
                          [&] { each = api_.register_events(handle, abi::kEventXid, set); });
    if (each == abi::kSuccess) ++registered;
  }
  lock.lock();
  if (code != abi::kSuccess || registered < handles.size()) {
    note("the driver does not report the XIDs of all GPUs: those of the others come from the kernel's log alone");
  }
  events_session_ = session;
  for_callers_.notify_all();
  bool waiting = code == abi::kSuccess && registered > 0;
  while (waiting && !stopping_ && session_ == session) {
    lock.unlock();
    abi::EventData data{};
    const std::int64_t began_ns = steady_ns();
    (void)event_slot_.run("nvmlEventSetWait", [&] { code = api_.event_set_wait(set, &data, kEventWaitMs); });
    const bool waited = steady_ns() - began_ns > in_ns(kEventWaitMs * 1e-3) / 2;
    lock.lock();
    if (code == abi::kSuccess) {
      take_driver_event(data);
    } else if (code != abi::kTimeout || !waited) {
      // A GPU that is lost ends the wait at once each time; the others may still have something to say.
      for_events_.wait_for(lock, std::chrono::milliseconds(500), [&] { return stopping_ || session_ != session; });
      waiting = code == abi::kGpuIsLost || code == abi::kUnknown || code == abi::kTimeout;
    }
  }
  lock.unlock();
  if (set != nullptr) (void)event_slot_.run("nvmlEventSetFree", [&] { (void)api_.event_set_free(set); });
  lock.lock();
}

void Core::take_driver_event(const abi::EventData& data) {
  if ((data.type & abi::kEventXid) == 0) return;
  Event event;
  event.kind = EventKind::xid;
  event.at_s = unix_s();
  event.code = static_cast<std::int64_t>(data.data & 0xFFFF'FFFF);
  constexpr unsigned kNone = std::numeric_limits<unsigned>::max();
  if (data.gpu_instance != kNone) event.details.emplace_back("gpu_instance", std::to_string(data.gpu_instance));
  if (data.compute_instance != kNone) {
    event.details.emplace_back("compute_instance", std::to_string(data.compute_instance));
  }
  std::string pci;
  for (const auto& device : devices_) {
    if (device->handle != data.device) continue;
    device->slow_at_ns = 0;
    event.gpu = device->latest.gpu;
    pci = device->latest.pci_bus_id.value_or("");
  }
  if (!pci.empty()) event.details.emplace_back("pci", pci);
  const std::string key = key_of(pci.empty() ? event.gpu : pci, *event.code);
  if (events_.push_once(key, steady_ns(), in_ns(options_.same_event_s), std::move(event))) for_callers_.notify_all();
}

void Core::take_kernel_line(std::string_view line) {
  KernelRecord record;
  if (!parse_kernel_record(line, &record) || record.priority >= kKernelFacilities) return;
  std::string pci;
  std::string uuid;
  KernelError error;
  if (parse_kernel_uuid(record.text, &pci, &uuid)) {
    const Lock lock(mutex_);
    if (uuids_.size() < kMostDevices || uuids_.count(pci) != 0) uuids_[pci] = uuid;
    return;
  }
  if (!parse_kernel_error(record.text, &error)) return;
  Event event;
  event.kind = error.nvswitch ? EventKind::sxid : EventKind::xid;
  event.source = "kmsg";
  event.at_s = moment_of(record);
  event.code = error.code;
  event.text = error.text;
  event.details.emplace_back("pci", error.pci_bus_id);
  if (error.pid) event.details.emplace_back("pid", std::to_string(*error.pid));
  if (!error.process.empty()) event.details.emplace_back("process", error.process);
  if (error.fatal) event.details.emplace_back("fatal", *error.fatal ? "true" : "false");
  if (error.link) event.details.emplace_back("link", std::to_string(*error.link));
  const std::string key = key_of(error.pci_bus_id, error.code);
  const Lock lock(mutex_);
  const auto told = uuids_.find(error.pci_bus_id);
  if (told != uuids_.end()) event.gpu = told->second;
  for (const auto& device : devices_) {
    if (error.nvswitch || key_of(device->latest.pci_bus_id.value_or(""), error.code) != key) continue;
    device->slow_at_ns = 0;
    event.gpu = device->latest.gpu;
  }
  if (error.nvswitch) {
    push(std::move(event));
  } else if (events_.push_once(key, steady_ns(), in_ns(options_.same_event_s), std::move(event))) {
    for_callers_.notify_all();
  }
}

}  // namespace textnlp_fast::nvml
