// Workers: they start NVML, find the GPUs, and ask each of them, round by round.
#include <algorithm>

#include "nvml/core.h"

namespace textnlp_fast::nvml {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kLeastRetry = kSecond / 2;
constexpr std::int64_t kMostRetry = 30 * kSecond;
// What a GPU did not support is asked again this often: modes change, MIG among them.
constexpr std::int64_t kEverythingAgain = 60 * kSecond;
constexpr std::int64_t kDetachWait = 2 * kSecond;

std::string with_code(const char* call, abi::Return code) {
  return std::string(call) + ": " + describe(code) + " (" + std::to_string(code) + ")";
}

}  // namespace

void Core::work(const std::shared_ptr<Worker>& worker) {
  Lock lock(mutex_);
  while (!stopping_ && !worker->replaced) {
    for_workers_.wait(
        lock, [&] { return stopping_ || worker->replaced || (paused_ && session_open_) || (round_due_ && !paused_); });
    if (stopping_ || worker->replaced) break;
    if (paused_) {
      if (!close_session(*worker, lock)) for_workers_.wait_for(lock, std::chrono::milliseconds(200));
      for_callers_.notify_all();
      continue;
    }
    round_due_ = false;
    in_round_ = true;
    const bool full = full_due_;
    const std::uint64_t wanted = full_taken_;
    round(worker, full, lock);
    if (worker->replaced) break;
    in_round_ = false;
    full_done_ = std::max(full_done_, wanted);
    ++rounds_;
    for_callers_.notify_all();
    for_supervisor_.notify_all();
  }
  leave_driver(worker->slot, lock);
}

void Core::round(const std::shared_ptr<Worker>& worker, bool full, Lock& lock) {
  if (!renew_session(*worker, full, lock)) return;
  unsigned count = 0;
  abi::Return code = abi::kUnknown;
  lock.unlock();
  (void)worker->slot.run("nvmlDeviceGetCount", [&] { code = api_.count(&count); });
  lock.lock();
  if (stopping_ || worker->replaced) return;
  if (code != abi::kSuccess || count > kMostDevices) {
    fail_session(*worker, code, "nvmlDeviceGetCount", lock);
    return;
  }
  if (!error_.empty()) {
    Event event;
    event.kind = EventKind::driver_answers;
    event.at_s = unix_s();
    event.text = "the driver answers again";
    push(std::move(event));
    error_.clear();
  }
  retry_pause_ns_ = 0;
  const bool missing = std::any_of(devices_.begin(), devices_.end(), [&](const auto& device) {
    return device->handle == nullptr && !device->gone && (full || steady_ns() >= device->slow_at_ns);
  });
  if ((!counted_ || count != device_count_ || missing) && !enumerate(*worker, count, lock)) return;
  // A copy: the list may be another when the lock has been let go of.
  const auto devices = devices_;
  for (const auto& device : devices) {
    if (device->handle == nullptr || device->busy != nullptr) continue;
    if (!query(worker, device, full, lock)) return;
  }
}

// Makes sure that NVML is started; false if it is not. A GPU that was lost and then reset is seen only by a new start.
bool Core::renew_session(Worker& worker, bool full, Lock& lock) {
  const std::int64_t now_ns = steady_ns();
  if (!session_open_) {
    if (!full && now_ns < retry_at_ns_) return false;
    return open_session(worker, lock);
  }
  const bool lost = std::any_of(devices_.begin(), devices_.end(),
                                [](const auto& device) { return device->gone || device->latest.lost; });
  const auto pause_ns = static_cast<std::int64_t>(options_.reinit_s * 1e9);
  if (!lost || now_ns - session_began_ns_ < pause_ns || any_overdue() || workers_.size() > 1) return true;
  return close_session(worker, lock) && open_session(worker, lock);
}

bool Core::open_session(Worker& worker, Lock& lock) {
  abi::Return code = abi::kUnknown;
  char driver[abi::kVersionBytes] = {};
  char library[abi::kVersionBytes] = {};
  lock.unlock();
  if (api_.init_with_flags != nullptr) {
    // No GPU is no failure: that they are gone is what there is to report.
    (void)worker.slot.run("nvmlInitWithFlags", [&] { code = api_.init_with_flags(abi::kInitNoGpus); });
  } else {
    (void)worker.slot.run("nvmlInit", [&] { code = api_.init(); });
  }
  if (code == abi::kSuccess) {
    (void)worker.slot.run("nvmlSystemGetDriverVersion", [&] {
      if (api_.driver_version != nullptr) (void)api_.driver_version(driver, sizeof driver);
      if (api_.library_version != nullptr) (void)api_.library_version(library, sizeof library);
    });
  }
  lock.lock();
  if (code != abi::kSuccess) {
    fail_session(worker, code, "nvmlInit", lock);
    return false;
  }
  initialised_ = true;
  session_open_ = true;
  session_began_ns_ = steady_ns();
  counted_ = false;
  const std::string version = printable(driver, sizeof driver);
  if (not_loaded_ || (!driver_version_.empty() && !version.empty() && version != driver_version_)) {
    Event event;
    event.kind = EventKind::driver_loaded;
    event.at_s = unix_s();
    event.text = "driver " + version + " was loaded";
    event.details.emplace_back("version", version);
    push(std::move(event));
  }
  not_loaded_ = false;
  driver_version_ = version;
  library_version_ = printable(library, sizeof library);
  return true;
}

// Frees the events, then NVML. False if that is not to be had now.
bool Core::close_session(Worker& worker, Lock& lock) {
  if (workers_.size() > 1) return false;  // one is out in a call, with a handle of this session
  session_open_ = false;
  ++session_;
  for_events_.notify_all();
  const bool detached = for_workers_.wait_for(lock, std::chrono::nanoseconds(kDetachWait),
                                              [this] { return !events_attached_ || stopping_; });
  if (!detached || events_attached_) {
    session_open_ = true;
    for_events_.notify_all();
    return false;
  }
  for (const auto& device : devices_) device->handle = nullptr;
  lock.unlock();
  (void)worker.slot.run("nvmlShutdown", [this] {
    if (api_.shutdown != nullptr) (void)api_.shutdown();
  });
  lock.lock();
  initialised_ = false;
  return true;
}

// What the driver says no to for all GPUs at once. NVML is ended, if it can be, and started anew after a while.
void Core::fail_session(Worker& worker, abi::Return code, const char* call, Lock& lock) {
  const std::string error = code == abi::kSuccess ? std::string(call) + " makes no sense" : with_code(call, code);
  if (error != error_) {
    Event event;
    event.kind = EventKind::driver_error;
    event.at_s = unix_s();
    event.code = code;
    event.text = error;
    push(std::move(event));
  }
  error_ = error;
  not_loaded_ = not_loaded_ || code == abi::kDriverNotLoaded;
  retry_pause_ns_ = std::clamp(2 * retry_pause_ns_, kLeastRetry, kMostRetry);
  retry_at_ns_ = steady_ns() + retry_pause_ns_;
  if (session_open_) (void)close_session(worker, lock);
}

bool Core::enumerate(Worker& worker, unsigned count, Lock& lock) {
  std::vector<Found> found(count);
  lock.unlock();
  for (unsigned index = 0; index < count; ++index) {
    Found& each = found[index];
    (void)worker.slot.run("nvmlDeviceGetHandleByIndex", [&] { each.code = api_.by_index(index, &each.handle); });
    if (each.code != abi::kSuccess) each.handle = nullptr;
    if (each.handle != nullptr) (void)identify(api_, worker.slot, each.handle, &each.identity);
  }
  lock.lock();
  if (stopping_ || worker.replaced) return false;
  const auto handles = [this] {
    std::vector<abi::Device> all;
    for (const auto& device : devices_) {
      if (device->handle != nullptr) all.push_back(device->handle);
    }
    return all;
  };
  const auto before = handles();
  const bool first = !counted_;
  merge(&found);
  if (first || handles() != before) {
    ++session_;  // the events are of the handles
    for_events_.notify_all();
  }
  return true;
}

// The device that was at this place before, or that has this UUID; taken out of `before`. None: it is new.
std::shared_ptr<Core::Device> Core::match(const Found& found, unsigned index, const std::vector<Found>& all,
                                          std::vector<std::shared_ptr<Device>>* before) {
  const auto same = [&](const std::shared_ptr<Device>& device) {
    if (device == nullptr) return false;
    if (!found.identity.uuid.empty()) {
      // The name of one that was not known by its UUID yet may stand for it.
      return device->latest.gpu == found.identity.uuid ||
             (device->latest.index == index && device->latest.gpu.rfind("index:", 0) == 0);
    }
    return device->latest.index == index && std::none_of(all.begin(), all.end(), [&](const Found& other) {
             return other.identity.uuid == device->latest.gpu;
           });
  };
  const auto place = std::find_if(before->begin(), before->end(), same);
  return place == before->end() ? nullptr : std::exchange(*place, nullptr);
}

void Core::merge(std::vector<Found>* found) {
  const auto count = static_cast<unsigned>(found->size());
  const std::int64_t now_ns = steady_ns();
  std::vector<std::shared_ptr<Device>> before = devices_;
  std::vector<std::shared_ptr<Device>> next;
  for (unsigned index = 0; index < count; ++index) {
    const Found& each = (*found)[index];
    auto device = match(each, index, *found, &before);
    if (device == nullptr) {
      device = std::make_shared<Device>();
      device->latest.gpu = "index:" + std::to_string(index);
    }
    device->latest.index = index;
    if (!each.identity.uuid.empty()) device->latest.gpu = each.identity.uuid;
    if (!each.identity.name.empty()) device->latest.name = each.identity.name;
    if (!each.identity.pci_bus_id.empty()) device->latest.pci_bus_id = each.identity.pci_bus_id;
    device->handle = each.handle;
    device->handle_error = each.code;
    device->gone = false;
    device->everything_at_ns = 0;
    device->slow_at_ns = 0;
    if (each.handle == nullptr) {
      Reading none;
      none.index = index;
      none.at_s = unix_s();
      none.gpu = device->latest.gpu;
      none.name = device->latest.name;
      none.pci_bus_id = device->latest.pci_bus_id;
      none.lost = each.code == abi::kGpuIsLost;
      none.error = with_code("nvmlDeviceGetHandleByIndex", each.code);
      device->latest = std::move(none);
      device->slow_at_ns = now_ns + static_cast<std::int64_t>(options_.slow_period_s * 1e9);
    }
    next.push_back(std::move(device));
  }
  std::string gone;
  for (auto& device : before) {
    if (device == nullptr) continue;
    if (!device->gone) gone += (gone.empty() ? "" : " ") + device->latest.gpu;
    device->gone = true;
    device->handle = nullptr;
    Reading last;
    last.index = device->latest.index;
    last.at_s = unix_s();
    last.gpu = device->latest.gpu;
    last.name = device->latest.name;
    last.pci_bus_id = device->latest.pci_bus_id;
    last.lost = true;
    last.error = "the driver does not list this GPU any more";
    device->latest = std::move(last);
    next.push_back(std::move(device));
  }
  // What the driver counted before it was started anew is what there was before, too.
  if (!devices_.empty() || counted_) {
    if (count != device_count_) {
      Event event;
      event.kind = EventKind::gpu_count;
      event.at_s = unix_s();
      event.code = count;
      event.text = "the driver counts " + std::to_string(count) + " GPUs, after " + std::to_string(device_count_);
      event.details.emplace_back("before", std::to_string(device_count_));
      if (!gone.empty()) event.details.emplace_back("gone", gone);
      push(std::move(event));
    }
  }
  devices_ = std::move(next);
  device_count_ = count;
  counted_ = true;
}

bool Core::query(const std::shared_ptr<Worker>& worker, const std::shared_ptr<Device>& device, bool full, Lock& lock) {
  const abi::Device handle = device->handle;
  const std::int64_t now_ns = steady_ns();
  const bool everything = full || now_ns >= device->everything_at_ns;
  const bool slow = everything || now_ns >= device->slow_at_ns;
  Known known = device->known;
  Reading reading = device->latest;
  device->busy = worker.get();
  worker->device = device;
  lock.unlock();
  query_device(api_, worker->slot, handle, slow, everything, &known, &reading);
  lock.lock();
  device->busy = nullptr;
  worker->device = nullptr;
  if (device->handle == handle) {
    reading.at_s = unix_s();
    reading.index = device->latest.index;
    device->latest = std::move(reading);
    device->known = std::move(known);
    device->read = true;
    if (slow) device->slow_at_ns = now_ns + static_cast<std::int64_t>(options_.slow_period_s * 1e9);
    if (everything) device->everything_at_ns = now_ns + kEverythingAgain;
  }
  return !stopping_ && !worker->replaced && !paused_;
}

}  // namespace textnlp_fast::nvml
