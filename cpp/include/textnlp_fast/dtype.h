// Element types, named as safetensors names them. The numbers are part of the frame format (docs/format.md).
#pragma once
#include <cstddef>
#include <cstdint>

namespace textnlp_fast {

enum class Dtype : std::uint8_t {
  opaque = 0,  // bytes without a meaning: tokenizers, packed formats
  boolean = 1,
  u8 = 2,
  i8 = 3,
  f8_e4m3 = 4,
  f8_e5m2 = 5,
  u16 = 6,
  i16 = 7,
  f16 = 8,
  bf16 = 9,
  u32 = 10,
  i32 = 11,
  f32 = 12,
  u64 = 13,
  i64 = 14,
  f64 = 15,
};
inline constexpr unsigned kDtypeCount = 16;

// Bytes an element takes; 0 for a number that is not a Dtype.
constexpr std::size_t element_size(Dtype dtype) noexcept {
  const auto index = static_cast<unsigned>(dtype);
  if (index >= kDtypeCount) return 0;
  return index < 6 ? 1 : index < 10 ? 2 : index < 13 ? 4 : 8;
}

// Bits of the exponent field, 0 for types that are not floating point.
constexpr unsigned exponent_bits(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::f8_e4m3: return 4;
    case Dtype::f8_e5m2: return 5;
    case Dtype::f16: return 5;
    case Dtype::bf16: return 8;
    case Dtype::f32: return 8;
    case Dtype::f64: return 11;
    default: return 0;
  }
}

}  // namespace textnlp_fast
