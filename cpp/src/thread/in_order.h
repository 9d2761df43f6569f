// Pieces made on a few threads and taken in order: for results whose places depend on the sizes of those before.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

#include "thread/parallel.h"

namespace textnlp_fast {

// Calls make(index, slot) once for every index in [0, count), on at most `threads` threads, and take(index, slot) once
// for each, one after the other and in order, on any of them. Of the `slots` (at least 1) each holds one piece from its
// making to its taking: a thread that is too far ahead waits. Neither may throw.
template <class Make, class Take>
void parallel_in_order(std::size_t count, unsigned threads, std::size_t slots, const Make& make, const Take& take) {
  std::mutex mutex;
  std::condition_variable moved_on;
  std::vector<bool> made(slots, false);
  std::size_t taken = 0;
  bool taking = false;
  parallel_for(count, threads, [&](std::size_t index) {
    std::unique_lock lock(mutex);
    // Pieces are handed out in order: whoever has the first that is missing never waits here.
    moved_on.wait(lock, [&] { return index < taken + slots; });
    lock.unlock();
    make(index, index % slots);
    lock.lock();
    made[index % slots] = true;
    // One takes for all: the others go on making.
    if (taking) return;
    taking = true;
    while (taken < count && made[taken % slots]) {
      lock.unlock();
      take(taken, taken % slots);
      lock.lock();
      made[taken % slots] = false;
      ++taken;
      moved_on.notify_all();
    }
    taking = false;
  });
}

}  // namespace textnlp_fast
