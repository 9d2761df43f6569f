#include "nvml/event_queue.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace textnlp_fast::nvml {

void EventQueue::push(Event event) {
  if (events_.size() >= kMost) {
    events_.pop_front();
    ++dropped_;
  }
  events_.push_back(std::move(event));
}

bool EventQueue::push_once(const std::string& key, std::int64_t now_ns, std::int64_t window_ns, Event event) {
  while (!unmatched_.empty() && (now_ns - unmatched_.front().at_ns > window_ns || unmatched_.size() >= kMost)) {
    unmatched_.pop_front();
  }
  const auto same = std::find_if(unmatched_.begin(), unmatched_.end(), [&](const Unmatched& earlier) {
    return earlier.key == key && std::strcmp(earlier.source, event.source) != 0;
  });
  if (same != unmatched_.end()) {
    unmatched_.erase(same);
    return false;
  }
  unmatched_.push_back({key, event.source, now_ns});
  push(std::move(event));
  return true;
}

std::vector<Event> EventQueue::take() {
  std::vector<Event> all(std::make_move_iterator(events_.begin()), std::make_move_iterator(events_.end()));
  events_.clear();
  return all;
}

}  // namespace textnlp_fast::nvml
