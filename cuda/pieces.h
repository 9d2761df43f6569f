// Many spans of memory cut into pieces of one size, which blocks take from one queue: so that one huge tensor and
// thousands of tiny ones keep a device equally busy.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/simt.h"

namespace textnlp_fast::device {

// Writes to before[n] how many pieces the spans before the n-th have, and to before[count] how many there are. One
// block of one warp. `Span` has a `size` in bytes.
template <class Span>
struct CountPieces {
  static constexpr unsigned kThreads = simt::kWarp;
  const Span* spans;
  std::size_t count;
  std::size_t piece_bytes;
  std::uint64_t* before;

  TEXTNLP_FAST_DEVICE void operator()() const {
    std::uint64_t sum = 0;
    for (std::size_t first = 0; first < count; first += simt::kWarp) {
      const std::size_t n = first + simt::lane();
      const std::uint64_t pieces = n < count ? (spans[n].size + piece_bytes - 1) / piece_bytes : 0;
      std::uint64_t total = 0;
      const std::uint64_t below = simt::sum_below(pieces, &total);
      if (n < count) before[n] = sum + below;
      sum += total;
    }
    if (simt::lane() == 0) before[count] = sum;
  }
};

// The span that a piece is of: the last whose first piece is it or one before. `before[count]` is more than `piece`.
TEXTNLP_FAST_DEVICE std::size_t span_of(const std::uint64_t* before, std::size_t count, std::uint64_t piece) {
  std::size_t low = 0;
  std::size_t high = count;
  while (high - low > 1) {
    const std::size_t middle = low + (high - low) / 2;
    if (before[middle] <= piece) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace textnlp_fast::device
