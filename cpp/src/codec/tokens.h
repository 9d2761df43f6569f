// A residual as a token and a few raw bits: sizes fall into buckets, small ones of one size each, larger ones
// logarithmic (with `mantissa` leading bits), whose raw bits give the place inside. A token is a bucket with a sign.
#pragma once
#include <cstdint>

#include "codec/ordered.h"

namespace textnlp_fast {

struct TokenScheme {
  unsigned direct;    // sizes up to this have buckets of their own
  unsigned mantissa;  // leading bits below the top bit that a bucket keeps
};

struct Token {
  unsigned token;
  unsigned raw_bits;
  std::uint64_t raw;
};

namespace {

constexpr unsigned kMostTokens = 128;

// Tokens a scheme can produce for residuals of `bits` bits.
TEXTNLP_FAST_HD inline unsigned token_limit(TokenScheme scheme, unsigned bits) {
  const unsigned limit = 2 * (scheme.direct + ((bits - scheme.mantissa) << scheme.mantissa)) + 1;
  return limit < kMostTokens ? limit : kMostTokens;
}

TEXTNLP_FAST_HD inline unsigned floor_log2(std::uint64_t value) {
#if defined(__CUDA_ARCH__)
  return 63u - static_cast<unsigned>(__clzll(static_cast<long long>(value)));
#else
  return 63u - static_cast<unsigned>(__builtin_clzll(value));
#endif
}

// The order of tokens is 0, +1, -1, +2, -2, ... in buckets.
TEXTNLP_FAST_HD inline unsigned signed_token(unsigned bucket, bool negative) {
  if (bucket == 0) return 0;
  const unsigned token = 2 * bucket - (negative ? 0 : 1);
  // Only the residual that is its own negative goes that far.
  return token < kMostTokens ? token : kMostTokens - 1;
}

template <class U>
TEXTNLP_FAST_HD inline Token token_of(U residual, TokenScheme scheme) {
  const bool negative = (residual >> (sizeof(U) * 8 - 1)) != 0;
  const std::uint64_t size = negative ? static_cast<U>(U{0} - residual) : residual;
  if (size <= scheme.direct) return {signed_token(static_cast<unsigned>(size), negative), 0, 0};
  const std::uint64_t shifted = size - (scheme.direct + 1) + (std::uint64_t{1} << scheme.mantissa);
  const unsigned low = floor_log2(shifted) - scheme.mantissa;
  const unsigned lead = static_cast<unsigned>(shifted >> low) & ((1u << scheme.mantissa) - 1);
  const std::uint64_t place = shifted & ((std::uint64_t{1} << low) - 1);
  return {signed_token(scheme.direct + 1 + (low << scheme.mantissa) + lead, negative), low, place};
}

TEXTNLP_FAST_HD inline unsigned bucket_of(unsigned token) { return (token + 1) >> 1; }

// No residual of `bits` bits needs a later bucket.
TEXTNLP_FAST_HD inline unsigned last_bucket(TokenScheme scheme, unsigned bits) {
  const unsigned last = scheme.direct + ((bits - scheme.mantissa) << scheme.mantissa);
  return last < kMostTokens / 2 ? last : kMostTokens / 2;
}

// Raw bits that follow a token.
TEXTNLP_FAST_HD inline unsigned raw_bits_of(unsigned token, TokenScheme scheme) {
  const unsigned bucket = (token + 1) >> 1;
  return bucket <= scheme.direct ? 0 : (bucket - scheme.direct - 1) >> scheme.mantissa;
}

TEXTNLP_FAST_HD inline bool is_negative(unsigned token) { return token != 0 && (token & 1) == 0; }

// The residual of a token's smallest size, in two's complement. Raw bits take it further from zero.
TEXTNLP_FAST_HD inline std::uint64_t token_origin(unsigned token, TokenScheme scheme) {
  const unsigned bucket = (token + 1) >> 1;
  std::uint64_t size = bucket;
  if (bucket > scheme.direct) {
    const unsigned above = bucket - scheme.direct - 1;
    const unsigned low = above >> scheme.mantissa;
    const std::uint64_t lead = (std::uint64_t{1} << scheme.mantissa) | (above & ((1u << scheme.mantissa) - 1));
    size = (lead << low) - (std::uint64_t{1} << scheme.mantissa) + scheme.direct + 1;
  }
  return is_negative(token) ? std::uint64_t{0} - size : size;
}

template <class U>
TEXTNLP_FAST_HD inline U residual_of_token(unsigned token, std::uint64_t raw, TokenScheme scheme) {
  const std::uint64_t origin = token_origin(token, scheme);
  return static_cast<U>(is_negative(token) ? origin - raw : origin + raw);
}

}  // namespace
}  // namespace textnlp_fast
