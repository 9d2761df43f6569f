// Events until somebody takes them: bounded, and one for what two sources report. Not thread-safe.
#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "textnlp_fast/nvml.h"

namespace textnlp_fast::nvml {

class EventQueue {
 public:
  static constexpr std::size_t kMost = 4096;

  void push(Event event);

  // Pushes an error of a GPU that the driver and the kernel's log both report. It is the same as an earlier one of the
  // other source, and dropped, if that has the same key, came no longer than `window_ns` ago, and has not been matched:
  // two reports of each of two errors are two. `now_ns` is of a steady clock. True if it was pushed.
  bool push_once(const std::string& key, std::int64_t now_ns, std::int64_t window_ns, Event event);

  std::vector<Event> take();
  [[nodiscard]] bool empty() const noexcept { return events_.empty(); }
  [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }

 private:
  struct Unmatched {
    std::string key;
    const char* source;
    std::int64_t at_ns;
  };

  std::deque<Event> events_;
  std::deque<Unmatched> unmatched_;  // in order of time
  std::uint64_t dropped_ = 0;
};

}  // namespace textnlp_fast::nvml
