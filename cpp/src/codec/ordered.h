// The residual: floats mapped to integers in the order of their values, subtracted, wrapped. Bits are compared, never
// values, so NaN payloads, infinities and -0 survive. Shared with the CUDA twin: plain arithmetic only.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define TEXTNLP_FAST_HD __host__ __device__
#else
#define TEXTNLP_FAST_HD
#endif

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

template <class U>
TEXTNLP_FAST_HD inline U residual_of(U target, U base, bool is_float) {
  return static_cast<U>(is_float ? to_ordered(target) - to_ordered(base) : target - base);
}

template <class U>
TEXTNLP_FAST_HD inline U apply_residual(U base, U residual, bool is_float) {
  return is_float ? from_ordered(static_cast<U>(to_ordered(base) + residual)) : static_cast<U>(base + residual);
}

template <class U>
TEXTNLP_FAST_HD inline unsigned context_field(U base, const ElementRule& rule) {
  return static_cast<unsigned>(base >> rule.context_shift) & rule.context_mask;
}

}  // namespace
}  // namespace textnlp_fast
