// Floats as integers in the order of their values, and residuals between them. Bits are compared, never values, so NaN
// payloads, infinities and -0 survive. Shared with the CUDA twin: plain arithmetic only.
#pragma once
#include <cstdint>

#include "codec/host_device.h"

namespace textnlp_fast {

// How a dtype is predicted: whether its bits are sign-magnitude, and which bits of the base choose the table.
struct ElementRule {
  bool is_float;
  unsigned context_shift;
  std::uint32_t context_mask;
};

// Internal linkage: each file gets a copy compiled for its instruction set.
namespace {

// Sign-magnitude bits to an unsigned integer that grows with the value: one step is one ULP.
template <class U>
TEXTNLP_FAST_HD inline U to_ordered(U bits) {
  const U top = static_cast<U>(U{1} << (sizeof(U) * 8 - 1));
  return static_cast<U>((bits & top) != 0 ? ~bits : bits | top);
}

template <class U>
TEXTNLP_FAST_HD inline U from_ordered(U ordered) {
  const U top = static_cast<U>(U{1} << (sizeof(U) * 8 - 1));
  return static_cast<U>((ordered & top) != 0 ? ordered ^ top : ~ordered);
}

// What turns a number's distance from zero around where zero was crossed: all bits but the sign, if the signs differ.
template <class U>
TEXTNLP_FAST_HD inline U turned(U value, U base, bool is_float) {
  const U top = static_cast<U>(U{1} << (sizeof(U) * 8 - 1));
  const bool crossed = is_float && ((value ^ base) & top) != 0;
  return static_cast<U>(crossed ? value ^ static_cast<U>(top - 1) : value);
}

// The residual counts ULPs away from zero: an update moves sizes more evenly than values.
template <class U>
TEXTNLP_FAST_HD inline U residual_of(U target, U base, bool is_float) {
  return static_cast<U>(turned(target, base, is_float) - base);
}

template <class U>
TEXTNLP_FAST_HD inline U apply_residual(U base, U residual, bool is_float) {
  return turned(static_cast<U>(base + residual), base, is_float);
}

template <class U>
TEXTNLP_FAST_HD inline unsigned context_field(U base, const ElementRule& rule) {
  return static_cast<unsigned>(base >> rule.context_shift) & rule.context_mask;
}

}  // namespace
}  // namespace textnlp_fast
