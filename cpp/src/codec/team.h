// Who works out a decision: one thread, or the lanes of a warp together (cuda/encode_team.h). Decisions are written
// once for both and come to the same bits: lanes share out symbols, and sums of doubles are taken in the order of
// symbols.
#pragma once
#include <cstdint>

#include "codec/host_device.h"

namespace textnlp_fast {

struct OneThread {
  static constexpr unsigned kSize = 1;
  [[nodiscard]] TEXTNLP_FAST_HD unsigned lane() const { return 0; }
  // The sum over all lanes.
  [[nodiscard]] TEXTNLP_FAST_HD std::int64_t sum(std::int64_t value) const { return value; }
  // `sum` and the terms of all lanes, lowest lane first.
  [[nodiscard]] TEXTNLP_FAST_HD double in_order(double sum, double term) const { return sum + term; }
  // The highest gain of all lanes, of equal ones that with the lowest index; an index below 0 is none.
  TEXTNLP_FAST_HD void best(double& /*gain*/, int& /*index*/) const {}
  // What one lane wrote, others may read.
  TEXTNLP_FAST_HD void sync() const {}
};

}  // namespace textnlp_fast
