// How many segments a frame takes. Shared with the CUDA twin.
#pragma once
#include <cstddef>

#include "codec/host_device.h"

namespace textnlp_fast {

// Segments for `count` elements of which `most` can be paid for: up to four, so that independent streams hide each
// other's latency.
TEXTNLP_FAST_HD inline unsigned segments_within(std::size_t count, double most) noexcept {
  constexpr std::size_t kElementsPerSegment = std::size_t{1} << 15;
  const std::size_t whole = count / kElementsPerSegment;
  const auto by_length = static_cast<double>(whole);
  const double wanted = most < by_length ? most : by_length;
  return wanted < 2 ? 1 : wanted < 4 ? 2 : 4;
}

// The same for elements that code to about `body_bytes`: one where the states of a second would show in the size.
TEXTNLP_FAST_HD inline unsigned choose_segments(std::size_t count, double body_bytes) noexcept {
  // A further segment's states take 128 bytes: at most half a percent of the frame.
  constexpr double kBytesPerSegment = 128 / 0.005;
  return segments_within(count, body_bytes / kBytesPerSegment);
}

}  // namespace textnlp_fast
