// The order map of floating-point bits and the difference in ULPs, element by element, for host and device alike.
//
// A float's bits, read as an integer, rise with its value for positive numbers and fall for negative ones; flipping the
// negatives makes one rising sequence of all patterns, -0 just below +0, NaNs at both ends. The difference of two such
// integers, wrapped, counts the representable numbers between; every pattern has its own place, so nothing is lost.
#pragma once
#include <cstdint>
#include <type_traits>

#if defined(__CUDACC__)
#define TEXTNLP_FAST_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define TEXTNLP_FAST_HOST_DEVICE inline
#endif

namespace textnlp_fast::twin {

// Bits (an unsigned integer of the element's width) -> place in the order.
template <class Bits>
TEXTNLP_FAST_HOST_DEVICE constexpr Bits ordered_from_bits(Bits bits) noexcept {
  static_assert(std::is_unsigned_v<Bits>);
  constexpr Bits kSign = static_cast<Bits>(Bits{1} << (sizeof(Bits) * 8 - 1));
  return static_cast<Bits>((bits & kSign) != 0 ? ~bits : bits | kSign);
}

// The inverse.
template <class Bits>
TEXTNLP_FAST_HOST_DEVICE constexpr Bits bits_from_ordered(Bits ordered) noexcept {
  static_assert(std::is_unsigned_v<Bits>);
  constexpr Bits kSign = static_cast<Bits>(Bits{1} << (sizeof(Bits) * 8 - 1));
  return static_cast<Bits>((ordered & kSign) != 0 ? ordered ^ kSign : ~ordered);
}

// How many places `target` lies above `base`, mod 2^width.
template <class Bits>
TEXTNLP_FAST_HOST_DEVICE constexpr Bits ulp_difference(Bits target, Bits base) noexcept {
  return static_cast<Bits>(ordered_from_bits(target) - ordered_from_bits(base));
}

// The bits that lie `difference` places above `base`.
template <class Bits>
TEXTNLP_FAST_HOST_DEVICE constexpr Bits ulp_apply(Bits base, Bits difference) noexcept {
  return bits_from_ordered(static_cast<Bits>(ordered_from_bits(base) + difference));
}

}  // namespace textnlp_fast::twin
