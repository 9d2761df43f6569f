// A residual as a token and a few raw bits: small residuals have a token each, larger ones share a token with their
// neighbours (a logarithmic bucket with `mantissa` leading bits) and send place and sign as they are.
#pragma once
#include <cstdint>

#include "codec/ordered.h"

namespace textnlp_fast {

struct TokenScheme {
  unsigned direct;    // residuals -direct ... direct have tokens of their own, in the order 0, +1, -1, +2, -2, ...
  unsigned mantissa;  // leading bits below the top bit that a bucket keeps
};

struct Token {
  unsigned token;
  unsigned raw_bits;
  std::uint64_t raw;
};

namespace {

// Tokens a scheme can produce for residuals of `bits` bits.
TEXTNLP_FAST_HD inline unsigned token_limit(TokenScheme scheme, unsigned bits) {
  return 2 * scheme.direct + 1 + ((bits - scheme.mantissa) << scheme.mantissa);
}

template <class U>
TEXTNLP_FAST_HD inline Token token_of(U residual, TokenScheme scheme) {
  const bool negative = (residual >> (sizeof(U) * 8 - 1)) != 0;
  const std::uint64_t size = negative ? static_cast<U>(U{0} - residual) : residual;
  if (size <= scheme.direct) {
    return {size == 0 ? 0u : static_cast<unsigned>(2 * size - 1 + (negative ? 1 : 0)), 0, 0};
  }
  const std::uint64_t shifted = size - (scheme.direct + 1) + (std::uint64_t{1} << scheme.mantissa);
#if defined(__CUDA_ARCH__)
  const unsigned log = 63u - static_cast<unsigned>(__clzll(static_cast<long long>(shifted)));
#else
  const unsigned log = 63u - static_cast<unsigned>(__builtin_clzll(shifted));
#endif
  const unsigned low = log - scheme.mantissa;
  const unsigned lead = static_cast<unsigned>(shifted >> low) & ((1u << scheme.mantissa) - 1);
  const std::uint64_t place = shifted & ((std::uint64_t{1} << low) - 1);
  return {2 * scheme.direct + 1 + (low << scheme.mantissa) + lead, low + 1, (place << 1) | (negative ? 1 : 0)};
}

// Raw bits that follow a token.
TEXTNLP_FAST_HD inline unsigned raw_bits_of(unsigned token, TokenScheme scheme) {
  const unsigned first = 2 * scheme.direct + 1;
  return token < first ? 0 : ((token - first) >> scheme.mantissa) + 1;
}

// Smallest magnitude of a bucket token; the residual itself, two's complement, for a direct one.
TEXTNLP_FAST_HD inline std::uint64_t token_origin(unsigned token, TokenScheme scheme) {
  const unsigned first = 2 * scheme.direct + 1;
  if (token < first) {
    const std::uint64_t size = (token + 1) >> 1;
    return (token != 0 && (token & 1) == 0) ? std::uint64_t{0} - size : size;
  }
  const unsigned low = (token - first) >> scheme.mantissa;
  const std::uint64_t lead = (std::uint64_t{1} << scheme.mantissa) | ((token - first) & ((1u << scheme.mantissa) - 1));
  return (lead << low) - (std::uint64_t{1} << scheme.mantissa) + scheme.direct + 1;
}

template <class U>
TEXTNLP_FAST_HD inline U residual_of_token(unsigned token, std::uint64_t raw, TokenScheme scheme) {
  const std::uint64_t origin = token_origin(token, scheme);
  if (token <= 2 * scheme.direct) return static_cast<U>(origin);
  const std::uint64_t size = origin + (raw >> 1);
  return static_cast<U>((raw & 1) != 0 ? std::uint64_t{0} - size : size);
}

}  // namespace
}  // namespace textnlp_fast
