// Which call into the driver a thread is in, and since when: written by that thread, watched by another.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>

namespace textnlp_fast::nvml {

inline std::int64_t steady_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class Slot {
 public:
  // `returned` runs on the thread itself when a call comes back that was declared overdue.
  using Returned = std::function<void(Slot&, const char* call, double seconds)>;

  explicit Slot(Returned returned) : returned_(std::move(returned)) {}

  // Runs a call. False: it was declared overdue meanwhile.
  template <class Call>
  bool run(const char* name, const Call& call) {
    const std::int64_t began = steady_ns();
    call_.store(name, std::memory_order_relaxed);
    since_.store(began, std::memory_order_release);
    call();
    const bool overdue = since_.exchange(0, std::memory_order_acq_rel) < 0;
    if (overdue) returned_(*this, name, static_cast<double>(steady_ns() - began) * 1e-9);
    return !overdue;
  }

  // When the call that is out began; 0 if none is.
  [[nodiscard]] std::int64_t since() const noexcept {
    const std::int64_t since = since_.load(std::memory_order_acquire);
    return since < 0 ? -since : since;
  }
  [[nodiscard]] bool overdue() const noexcept { return since_.load(std::memory_order_acquire) < 0; }
  [[nodiscard]] const char* call() const noexcept { return call_.load(std::memory_order_relaxed); }

  // Declares the call that began at `since` overdue; false if it has returned, or was declared so before.
  bool declare_overdue(std::int64_t since) noexcept {
    return since_.compare_exchange_strong(since, -since, std::memory_order_acq_rel);
  }

 private:
  std::atomic<const char*> call_{""};
  // Negative: declared overdue. One word, so that a call cannot return between the look and the declaration.
  std::atomic<std::int64_t> since_{0};
  Returned returned_;
};

}  // namespace textnlp_fast::nvml
