// Which codes of a frame are weighed against each other. Shared with the CUDA twin.
#pragma once
#include <cstddef>
#include <cstdint>

#include "codec/host_device.h"
#include "textnlp_fast/dtype.h"

namespace textnlp_fast {

// A delta smaller than this share of the raw frame is not weighed against a standalone code.
constexpr double kClearlyDelta = 0.55;
// Wide elements may hold little.
constexpr double kClearlyWideDelta = 0.2;
// Below this share of the raw frame nothing beats the places of the changes.
constexpr double kRarelyChanged = 0.01;

// Whether what a code against the base takes says that one without is not worth a try.
TEXTNLP_FAST_HD inline bool clearly_delta(Dtype dtype, std::size_t best, std::size_t size) {
  const double share = element_size(dtype) > 2 ? kClearlyWideDelta : kClearlyDelta;
  return static_cast<double>(best) < share * static_cast<double>(size);
}

TEXTNLP_FAST_HD inline bool rarely_changed(std::size_t best, std::size_t size) {
  return static_cast<double>(best) < kRarelyChanged * static_cast<double>(size);
}

// Elements between two that are looked at, to see whether the lowest bytes of wide floats stay.
TEXTNLP_FAST_HD inline std::size_t lowest_byte_stride(std::size_t count) {
  constexpr std::size_t kSamples = 512;
  return count / kSamples + 1;
}

}  // namespace textnlp_fast
