// The element types whose steps of an optimiser can be worked out, by their arithmetic: to single precision, which
// holds them all exactly, and back to the nearest, ties to even. Only finite numbers are handed over. Internal linkage:
// each file gets a copy compiled for its instruction set.
#pragma once
#include <cstdint>
#include <cstring>

#include "codec/host_device.h"

namespace textnlp_fast {
namespace {

TEXTNLP_FAST_HD inline float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

TEXTNLP_FAST_HD inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

struct Bfloat16 {
  using Word = std::uint16_t;
  static constexpr Word kExponent = 0x7f80;
  TEXTNLP_FAST_HD static float wide(Word bits) { return float_of(static_cast<std::uint32_t>(bits) << 16); }
  TEXTNLP_FAST_HD static Word narrow(float value) {
    const std::uint32_t bits = bits_of(value);
    return static_cast<Word>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
};

struct Float16 {
  using Word = std::uint16_t;
  static constexpr Word kExponent = 0x7c00;
  TEXTNLP_FAST_HD static float wide(Word bits) {
    // The exponent of the smallest single is 112 below that of the smallest half: scaled up, subnormals come out right.
    const std::uint32_t magnitude = static_cast<std::uint32_t>(bits & 0x7fff) << 13;
    const float scaled = float_of(magnitude) * 0x1p112F;
    return float_of(bits_of(scaled) | static_cast<std::uint32_t>(bits & 0x8000) << 16);
  }
  TEXTNLP_FAST_HD static Word narrow(float value) {
    const std::uint32_t bits = bits_of(value);
    const std::uint32_t sign = (bits >> 16) & 0x8000;
    const std::uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x477ff000) return static_cast<Word>(sign | 0x7c00);
    if (magnitude < 0x38800000) {
      // Adding one half's worth of the last place's weight lets the addition round to the grid of the subnormals.
      const float rounded = float_of(magnitude) + 0.5F;
      return static_cast<Word>(sign | (bits_of(rounded) - bits_of(0.5F)));
    }
    const std::uint32_t rebased = magnitude - (112u << 23);
    return static_cast<Word>(sign | ((rebased + 0xfff + ((rebased >> 13) & 1)) >> 13));
  }
};

struct Float32 {
  using Word = std::uint32_t;
  static constexpr Word kExponent = 0x7f800000;
  TEXTNLP_FAST_HD static float wide(Word bits) { return float_of(bits); }
  TEXTNLP_FAST_HD static Word narrow(float value) { return bits_of(value); }
};

}  // namespace
}  // namespace textnlp_fast
