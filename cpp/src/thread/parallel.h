// Runs independent pieces of one call on a few threads. No pool outlives the call, so a fork or an unload of the
// library never meets a stray thread; callers hand over pieces large enough (a frame, a megabyte) to pay for a thread.
#pragma once
#include <atomic>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

#include "textnlp_fast/cpu.h"

namespace textnlp_fast {

// Calls body(index) once for every index in [0, count), on at most `threads` threads (0: default_threads()), this one
// among them. Pieces are handed out in order. `body` must not throw. If the system refuses a thread, the work goes on
// with those that started.
template <class Body>
void parallel_for(std::size_t count, unsigned threads, const Body& body) {
  std::size_t workers = threads == 0 ? default_threads() : threads;
  if (workers > count) workers = count;
  if (workers <= 1) {
    for (std::size_t index = 0; index < count; ++index) body(index);
    return;
  }
  std::atomic<std::size_t> next{0};
  auto work = [&] {
    for (std::size_t index = next.fetch_add(1); index < count; index = next.fetch_add(1)) body(index);
  };
  std::vector<std::thread> helpers;
  helpers.reserve(workers - 1);
  try {
    for (std::size_t started = 1; started < workers; ++started) helpers.emplace_back(work);
  } catch (const std::system_error&) {  // NOLINT(bugprone-empty-catch)
    // Fewer threads than asked for: slower, not wrong.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace textnlp_fast
