// The thread loop runs every piece exactly once, whatever the number of pieces and threads; in order, it takes each in
// its turn and never has more of them than there are slots.
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

#include "check.h"
#include "thread/in_order.h"
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

void pieces_are_taken_in_order_out_of_few_slots() {
  for (const std::size_t count : {0UL, 1UL, 5UL, 400UL}) {
    for (const unsigned threads : {1U, 2U, 7U}) {
      for (const std::size_t slots : {1UL, 2UL, 9UL}) {
        std::vector<std::size_t> held(slots);
        std::vector<std::atomic<int>> in_use(slots);
        std::atomic<bool> alone{true};
        std::vector<std::size_t> order;
        parallel_in_order(
            count, threads, slots,
            [&](std::size_t index, std::size_t slot) {
              if (in_use[slot].fetch_add(1) != 0) alone = false;
              // Later pieces are often done before earlier ones.
              for (std::size_t spin = 0; spin < (index % 7 == 0 ? 20000U : 10U); ++spin) held[slot] = spin;
              held[slot] = index * 3;
            },
            [&](std::size_t index, std::size_t slot) {
              if (held[slot] != index * 3) alone = false;
              order.push_back(index);
              in_use[slot].fetch_sub(1);
            });
        CHECK(alone);
        CHECK(order.size() == count);
        bool sorted = true;
        for (std::size_t index = 0; index < order.size(); ++index) sorted = sorted && order[index] == index;
        CHECK(sorted);
      }
    }
  }
}

}  // namespace

int main() {
  pieces_are_taken_in_order_out_of_few_slots();
  every_piece_runs_once();
  one_thread_runs_in_order_on_the_caller();
  what_the_pieces_wrote_is_seen_after_the_call();
  return finish();
}
