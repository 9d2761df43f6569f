// The thread loop runs every piece exactly once, whatever the number of pieces and threads.
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

#include "check.h"
#include "thread/parallel.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;

namespace {

void every_piece_runs_once() {
  for (const std::size_t count : {0UL, 1UL, 2UL, 7UL, 1000UL}) {
    for (const unsigned threads : {0U, 1U, 2U, 5U, 64U}) {
      std::vector<std::atomic<unsigned>> runs(count);
      parallel_for(count, threads, [&](std::size_t index) { runs[index].fetch_add(1); });
      bool once = true;
      for (const auto& run : runs) once = once && run.load() == 1;
      CHECK(once);
    }
  }
}

void one_thread_runs_in_order_on_the_caller() {
  std::vector<std::size_t> order;
  const auto caller = std::this_thread::get_id();
  bool here = true;
  parallel_for(100, 1, [&](std::size_t index) {
    order.push_back(index);
    here = here && std::this_thread::get_id() == caller;
  });
  CHECK(here);
  CHECK(order.size() == 100);
  bool sorted = true;
  for (std::size_t index = 0; index < order.size(); ++index) sorted = sorted && order[index] == index;
  CHECK(sorted);
}

void what_the_pieces_wrote_is_seen_after_the_call() {
  std::vector<std::size_t> squares(10'000);
  parallel_for(squares.size(), 4, [&](std::size_t index) { squares[index] = index * index; });
  bool right = true;
  for (std::size_t index = 0; index < squares.size(); ++index) right = right && squares[index] == index * index;
  CHECK(right);
}

}  // namespace

int main() {
  every_piece_runs_once();
  one_thread_runs_in_order_on_the_caller();
  what_the_pieces_wrote_is_seen_after_the_call();
  return finish();
}
