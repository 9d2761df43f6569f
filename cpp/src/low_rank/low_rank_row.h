// One row of the low-rank recipe over any vector of floats, and that vector of width one. Everything here is private to
// the file that includes it: kernel files are compiled with their own flags.
//
// A vector type V has: Floats, kWidth, zero, set, load, fma, mul, add, and for each tag T of an element type
// widen<T>(bytes), narrow<T>(bytes, floats), round<T>(floats).
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "codec/host_device.h"
#include "low_rank/low_rank_kernels.h"

namespace textnlp_fast {
namespace {  // NOLINT(google-build-namespaces)  one copy a kernel file, on purpose

struct Bf16 {
  static constexpr std::size_t kBytes = 2;
};
struct F16 {
  static constexpr std::size_t kBytes = 2;
};
struct F32 {
  static constexpr std::size_t kBytes = 4;
};

constexpr std::uint32_t kQuietNan = 0x7fc00000;
constexpr std::uint32_t kInfinity = 0x7f800000;

TEXTNLP_FAST_HD inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

TEXTNLP_FAST_HD inline float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

TEXTNLP_FAST_HD inline std::uint32_t load16(const std::uint8_t* from) {
  std::uint16_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return bits;
}

TEXTNLP_FAST_HD inline void store16(std::uint8_t* to, std::uint32_t bits) {
  const auto low = static_cast<std::uint16_t>(bits);
  std::memcpy(to, &low, sizeof low);
}

TEXTNLP_FAST_HD inline bool is_nan(std::uint32_t bits) { return (bits & 0x7fffffff) > kInfinity; }

TEXTNLP_FAST_HD inline std::uint32_t to_bf16(float value) {
  const std::uint32_t bits = bits_of(value);
  return is_nan(bits) ? kQuietNan >> 16 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// A half's magnitude shifted into a float's place is 2^112 too small, subnormals included.
TEXTNLP_FAST_HD inline float from_f16(std::uint32_t half) {
  const std::uint32_t magnitude = half & 0x7fff;
  const std::uint32_t sign = (half & 0x8000) << 16;
  if (magnitude >= 0x7c00) return float_of(sign | kInfinity | (magnitude & 0x3ff) << 13);
  return float_of(sign | bits_of(float_of(magnitude << 13) * 0x1p112F));
}

// Below the least normal half, adding 0.5 lets the float adder round at the half's last place.
TEXTNLP_FAST_HD inline std::uint32_t to_f16(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = bits >> 16 & 0x8000;
  const std::uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > kInfinity) return 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and more
  if (magnitude < 0x38800000) return sign | (bits_of(float_of(magnitude) + 0.5F) - 0x3f000000);
  return sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
}

struct Scalar {
  using Floats = float;
  static constexpr std::size_t kWidth = 1;
  static float zero() { return 0; }
  TEXTNLP_FAST_HD static float set(float value) { return value; }
  static float load(const float* from) { return *from; }
  static float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
  TEXTNLP_FAST_HD static float mul(float a, float b) { return a * b; }
  TEXTNLP_FAST_HD static float add(float a, float b) { return a + b; }

  template <class T>
  TEXTNLP_FAST_HD static float widen(const std::uint8_t* from) {
    if constexpr (std::is_same_v<T, F32>) {
      float value;
      std::memcpy(&value, from, sizeof value);
      return value;
    } else if constexpr (std::is_same_v<T, Bf16>) {
      return float_of(load16(from) << 16);
    } else {
      return from_f16(load16(from));
    }
  }

  template <class T>
  TEXTNLP_FAST_HD static void narrow(std::uint8_t* to, float value) {
    if constexpr (std::is_same_v<T, F32>) {
      const float kept = is_nan(bits_of(value)) ? float_of(kQuietNan) : value;
      std::memcpy(to, &kept, sizeof kept);
    } else if constexpr (std::is_same_v<T, Bf16>) {
      store16(to, to_bf16(value));
    } else {
      store16(to, to_f16(value));
    }
  }

  template <class T>
  TEXTNLP_FAST_HD static float round(float value) {
    if constexpr (std::is_same_v<T, F32>) {
      return value;
    } else if constexpr (std::is_same_v<T, Bf16>) {
      return float_of(to_bf16(value) << 16);
    } else {
      return from_f16(to_f16(value));
    }
  }
};

// The merge itself: what a step rounds is docs/format.md's order, on every set.
template <class V, class T>
TEXTNLP_FAST_HD inline void merge(const LowRankRow& row, typename V::Floats product, std::size_t at) {
  if (row.rounding == 2) product = V::template round<T>(product);
  product = V::mul(V::set(row.scale), product);
  if (row.rounding != 0) product = V::template round<T>(product);
  V::template narrow<T>(row.out + at * T::kBytes, V::add(V::template widen<T>(row.base + at * T::kBytes), product));
}

// `kSide` vectors side by side hide the latency of the fused multiply-adds; the order over k is the same.
template <class V, class T, unsigned kSide>
inline std::size_t columns(const LowRankRow& row, std::size_t at) {
  constexpr std::size_t kStep = V::kWidth * kSide;
  for (; row.count - at >= kStep; at += kStep) {
    typename V::Floats sums[kSide];
    for (unsigned side = 0; side < kSide; ++side) sums[side] = V::zero();
    const float* a = row.a + at;
    for (std::size_t k = 0; k < row.rank; ++k, a += row.stride) {
      const typename V::Floats b = V::set(row.b[k]);
      for (unsigned side = 0; side < kSide; ++side) sums[side] = V::fma(b, V::load(a + side * V::kWidth), sums[side]);
    }
    for (unsigned side = 0; side < kSide; ++side) merge<V, T>(row, sums[side], at + side * V::kWidth);
  }
  return at;
}

template <class V, class T>
void low_rank_row(const LowRankRow* row) noexcept {
  std::size_t at = columns<V, T, 8>(*row, 0);
  at = columns<V, T, 1>(*row, at);
  columns<Scalar, T, 1>(*row, at);
}

}  // namespace
}  // namespace textnlp_fast
