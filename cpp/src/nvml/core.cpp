#include "nvml/core.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <new>
#include <system_error>

namespace textnlp_fast::nvml {
namespace {

constexpr unsigned kMostLeftBehind = 16;
std::atomic<unsigned> left_behind{0};

// Signals are the program's: its own threads answer them.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

std::chrono::steady_clock::time_point after(double seconds) {
  // A wait of years overflows the clock; a year is for ever here.
  const double most = 365.0 * 86400;
  const auto wait = std::chrono::duration<double>(seconds > 0 ? std::min(seconds, most) : 0);
  return std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::nanoseconds>(wait);
}

bool sane(double value, double least, double most) { return std::isfinite(value) && value >= least && value <= most; }

}  // namespace

double unix_s() noexcept {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

unsigned threads_left_behind() noexcept { return left_behind.load(); }

Core::Core(const Options& options, const Api& api, std::string library)
    : options_(options),
      api_(api),
      library_(std::move(library)),
      process_(getpid()),
      deadline_ns_(static_cast<std::int64_t>(options.deadline_s * 1e9)),
      event_slot_([this](Slot&, const char* call, double seconds) { returned(nullptr, call, seconds); }) {}

// Runs `body` on a thread of its own; needs the lock. The thread keeps this object alive.
template <class Body>
void Core::spawn(const char* name, const Body& body) {
  threads_.emplace_back();
  Thread* record = &threads_.back();
  try {
    record->thread = std::thread([self = shared_from_this(), record, name, body] {
#if defined(__linux__)
      pthread_setname_np(pthread_self(), name);
#else
      (void)name;
#endif
      try {
        body();
      } catch (const std::bad_alloc&) {
        const Lock lock(self->mutex_);
        self->error_ = "memory ran out in a thread of the collector: start another";
      }
      const Lock lock(self->mutex_);
      record->ended = true;
      if (record->left_behind) left_behind.fetch_sub(1);
      self->for_callers_.notify_all();
      self->for_supervisor_.notify_all();
    });
  } catch (...) {
    threads_.pop_back();
    throw;
  }
}

void Core::spawn_worker() {
  auto worker = std::make_shared<Worker>(this);
  spawn("nvml-worker", [this, worker] { work(worker); });
  workers_.push_back(std::move(worker));
  ++in_driver_;
}

// Joins what has ended; needs the lock, which no thread takes after it said that it ended.
void Core::reap() {
  for (auto each = threads_.begin(); each != threads_.end();) {
    if (each->ended && each->thread.joinable()) {
      each->thread.join();
      each = threads_.erase(each);
    } else {
      ++each;
    }
  }
}

Status Core::start() {
  Lock lock(mutex_);
  if (!options_.kernel_log.empty()) {
    auto log = std::make_unique<KernelLog>();
    std::string why;
    if (log->open(options_.kernel_log, options_.kernel_log_from_start, &why)) {
      kernel_log_ = std::move(log);
    } else {
      notes_.push_back("the kernel's log is not read (" + options_.kernel_log + ": " + why +
                       "): XIDs come from the driver alone, and SXIDs not at all; run as root, or with CAP_SYSLOG and "
                       "read access to it");
    }
  }
  const SignalsBlocked blocked;
  try {
    spawn("nvml-watch", [this] { supervise(); });
    spawn_worker();
    if (api_.event_set_create != nullptr && api_.event_set_wait != nullptr && api_.register_events != nullptr &&
        api_.event_set_free != nullptr) {
      spawn("nvml-events", [this] { watch_events(); });
      events_watched_ = true;
      ++in_driver_;
    } else {
      note("this driver has no events: XIDs come from the kernel's log alone");
    }
    if (kernel_log_ != nullptr) {
      spawn("nvml-kmsg", [this] {
        kernel_log_->run([this](std::string_view line) { take_kernel_line(line); },
                         [this] {
                           const Lock missed(mutex_);
                           ++kernel_log_missed_;
                         });
      });
    }
  } catch (const std::system_error&) {
    return Status::failure(Code::device_error, "no thread could be started");
  }
  return {};
}

void Core::stop(double grace_s) {
  Lock lock(mutex_);
  stopping_ = true;
  for_supervisor_.notify_all();
  for_workers_.notify_all();
  for_events_.notify_all();
  for_callers_.notify_all();
  if (kernel_log_ != nullptr) kernel_log_->stop();
  (void)for_callers_.wait_until(lock, after(grace_s), [this] {
    return std::all_of(threads_.begin(), threads_.end(), [](const Thread& each) { return each.ended; });
  });
  reap();
  for (Thread& each : threads_) {
    if (!each.thread.joinable()) continue;
    each.left_behind = true;
    left_behind.fetch_add(1);
    each.thread.detach();
  }
}

void Core::note(std::string text) {
  if (std::find(notes_.begin(), notes_.end(), text) == notes_.end() && notes_.size() < 32) {
    notes_.push_back(std::move(text));
  }
}

void Core::push(Event event) {
  events_.push(std::move(event));
  for_callers_.notify_all();
}

void Core::returned(Worker* worker, const char* call, double seconds) {
  const Lock lock(mutex_);
  Event event;
  event.kind = EventKind::driver_answers;
  event.at_s = unix_s();
  if (worker != nullptr && worker->device != nullptr) event.gpu = worker->device->latest.gpu;
  char text[160];
  std::snprintf(text, sizeof text, "%s returned after %.1f s", call, seconds);
  event.text = text;
  event.details.emplace_back("call", call);
  push(std::move(event));
  for_supervisor_.notify_all();
}

// The last thread that makes calls shuts NVML down; on its own thread, where a hang holds nobody else up.
void Core::leave_driver(Slot& slot, Lock& lock) {
  --in_driver_;
  if (in_driver_ != 0 || !session_open_) return;
  session_open_ = false;
  lock.unlock();
  (void)slot.run("nvmlShutdown", [this] {
    if (api_.shutdown != nullptr) (void)api_.shutdown();
  });
  lock.lock();
}

bool Core::any_overdue() {
  return event_slot_.overdue() ||
         std::any_of(workers_.begin(), workers_.end(), [](const auto& each) { return each->slot.overdue(); });
}

// Needs the lock.
void Core::snapshot(std::vector<Reading>* out) {
  const std::int64_t now_ns = steady_ns();
  const auto waits = [&](const Slot& slot) {
    char text[160];
    std::snprintf(text, sizeof text, "no answer: %s has not returned for %.1f s", slot.call(),
                  static_cast<double>(now_ns - slot.since()) * 1e-9);
    return std::string(text);
  };
  std::string all;  // what keeps every GPU from being read
  if (!workers_.empty() && workers_.back()->slot.overdue() && workers_.back()->device == nullptr) {
    all = waits(workers_.back()->slot);
  } else if (!error_.empty()) {
    all = error_;
  } else if (paused_) {
    all = "the collector is paused";
  }
  for (const auto& device : devices_) {
    std::string error = all;
    if (device->busy != nullptr && device->busy->slot.overdue()) error = waits(device->busy->slot);
    // What was read before a GPU was first asked, or before the driver hung, is not what is true now.
    if (error.empty()) {
      if (device->read || device->gone || device->handle == nullptr) out->push_back(device->latest);
      continue;
    }
    Reading silent;
    silent.index = device->latest.index;
    silent.gpu = device->latest.gpu;
    silent.name = device->latest.name;
    silent.pci_bus_id = device->latest.pci_bus_id;
    silent.lost = device->latest.lost;
    silent.at_s = unix_s();
    silent.error = std::move(error);
    out->push_back(std::move(silent));
  }
  std::stable_sort(out->begin(), out->end(), [](const Reading& a, const Reading& b) { return a.index < b.index; });
}

void Core::sample(double timeout_s, std::vector<Reading>* out) {
  Lock lock(mutex_);
  const std::uint64_t mine = ++full_wanted_;
  for_supervisor_.notify_all();
  (void)for_callers_.wait_until(lock, after(timeout_s), [&] {
    // Whoever has a reading in hand can count on hearing of the next XID.
    const bool listening = !session_open_ || !events_watched_ || event_slot_.overdue() || events_session_ == session_;
    return (full_done_ >= mine && listening) || stopping_ || paused_;
  });
  snapshot(out);
}

void Core::readings(std::vector<Reading>* out) {
  const Lock lock(mutex_);
  snapshot(out);
}

void Core::events(double timeout_s, std::vector<Event>* out) {
  Lock lock(mutex_);
  (void)for_callers_.wait_until(lock, after(timeout_s), [this] { return !events_.empty() || stopping_; });
  *out = events_.take();
}

void Core::state(State* out) {
  const Lock lock(mutex_);
  out->library = library_;
  out->driver_version = driver_version_;
  out->library_version = library_version_;
  out->ready = session_open_;
  out->hung = any_overdue();
  out->paused = paused_;
  out->error = error_;
  out->notes = notes_;
  out->gpu_count = device_count_;
  out->rounds = rounds_;
  out->events_dropped = events_.dropped();
  out->kernel_log_missed = kernel_log_missed_;
  out->threads = static_cast<std::uint32_t>(
      std::count_if(threads_.begin(), threads_.end(), [](const Thread& each) { return !each.ended; }));
}

bool Core::pause(double timeout_s) {
  Lock lock(mutex_);
  paused_ = true;
  for_workers_.notify_all();
  for_callers_.notify_all();
  (void)for_callers_.wait_until(lock, after(timeout_s), [this] { return !initialised_ || !paused_ || stopping_; });
  return !initialised_;
}

void Core::resume() {
  const Lock lock(mutex_);
  paused_ = false;
  retry_at_ns_ = 0;
  // A round that came due just before the pause waits for a worker, and the supervisor asks for no second one.
  for_workers_.notify_all();
  for_supervisor_.notify_all();
}

// --- the public face: each call says so if it is made in a child of the process that started the threads
// --------------

Status Collector::start(const Options& options, std::string* why) {
  const double day = 86400;
  if ((options.period_s != 0 && !sane(options.period_s, 0.001, day)) || !sane(options.slow_period_s, 0, day) ||
      !sane(options.deadline_s, 0.001, 3600) || !sane(options.reinit_s, 0.001, 365 * day) ||
      !sane(options.same_event_s, 0, 3600)) {
    return Status::failure(Code::invalid_argument, "a period or deadline of the collector is out of range");
  }
  if (threads_left_behind() >= kMostLeftBehind) {
    return Status::failure(Code::device_error,
                           "the driver hangs: too many threads of earlier collectors still wait for it");
  }
  try {
    Api api;
    std::string library;
    const Status loaded = load_api(options.library, &api, &library, why);
    if (!loaded.ok()) return loaded;
    return start_with(options, api, library);
  } catch (const std::bad_alloc&) {
    return Status::failure(Code::out_of_memory, "memory ran out");
  }
}

Status Collector::start_with(const Options& options, const Api& api, const std::string& library) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (core_ != nullptr) return Status::failure(Code::invalid_argument, "the collector was started already");
  auto core = std::make_shared<Core>(options, api, library);
  const Status started = core->start();
  if (!started.ok()) {
    core->stop(1);
    return started;
  }
  core_ = std::move(core);
  process_ = getpid();
  return {};
}

template <class Body>
Status Collector::guarded(const Body& body) const {
  // In a child the mutex may be held by a thread that is not there.
  const pid_t process = process_.load();
  if (process != 0 && process != getpid()) {
    return Status::failure(Code::invalid_argument, "the collector was started before this process was forked off");
  }
  std::shared_ptr<Core> core;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    core = core_;
  }
  if (core == nullptr) return Status::failure(Code::invalid_argument, "the collector is not running");
  try {
    body(*core);
  } catch (const std::bad_alloc&) {
    return Status::failure(Code::out_of_memory, "memory ran out");
  }
  return {};
}

Status Collector::sample(double timeout_s, std::vector<Reading>* out) {
  return guarded([&](Core& core) { core.sample(timeout_s, out); });
}

Status Collector::readings(std::vector<Reading>* out) const {
  return guarded([&](Core& core) { core.readings(out); });
}

Status Collector::events(double timeout_s, std::vector<Event>* out) {
  return guarded([&](Core& core) { core.events(timeout_s, out); });
}

Status Collector::state(State* out) const {
  return guarded([&](Core& core) { core.state(out); });
}

Status Collector::pause(double timeout_s, bool* released) {
  return guarded([&](Core& core) { *released = core.pause(timeout_s); });
}

Status Collector::resume() {
  return guarded([&](Core& core) { core.resume(); });
}

void Collector::stop(double grace_s) {
  const pid_t process = process_.load();
  // In a child there is nothing to stop, and what its parent's threads hold must not be touched. They hold the core
  // too, so that it is never destroyed here.
  if (process != 0 && process != getpid()) return;
  std::shared_ptr<Core> core;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    core = std::move(core_);
    core_ = nullptr;
  }
  if (core != nullptr) core->stop(grace_s);
}

}  // namespace textnlp_fast::nvml
