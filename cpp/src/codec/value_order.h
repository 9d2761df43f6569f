// Bits in the order of the values they stand for, and how far apart two are.
#pragma once
#include <cstdint>

#include "codec/ordered.h"
#include "textnlp_fast/dtype.h"

namespace textnlp_fast {

enum class ValueOrder { as_is, sign_magnitude, twos_complement };

TEXTNLP_FAST_HD inline ValueOrder order_of(Dtype dtype) {
  if (exponent_bits(dtype) != 0) return ValueOrder::sign_magnitude;
  const bool is_signed = dtype == Dtype::i8 || dtype == Dtype::i16 || dtype == Dtype::i32 || dtype == Dtype::i64;
  return is_signed ? ValueOrder::twos_complement : ValueOrder::as_is;
}

template <class U>
TEXTNLP_FAST_HD inline U place_of(U bits, ValueOrder order) {
  if (order == ValueOrder::sign_magnitude) return to_ordered(bits);
  return order == ValueOrder::twos_complement ? static_cast<U>(bits ^ (U{1} << (sizeof(U) * 8 - 1))) : bits;
}

// Steps between two, up or down.
template <class U>
TEXTNLP_FAST_HD inline U distance(U a, U b, ValueOrder order) {
  const U x = place_of(a, order);
  const U y = place_of(b, order);
  return static_cast<U>(x > y ? x - y : y - x);
}

}  // namespace textnlp_fast
