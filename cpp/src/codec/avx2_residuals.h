// Elements of one and two bytes on AVX2, each in a lane of 16 bits: contexts, and tokens back to residuals.
// What belongs to an element but fits a byte (context, token) is looked up in bytes, thirty-two to a register, in the
// order that a pack within 128 bits leaves; an unpack restores lane order.
#pragma once
#include "codec/avx2_bytes.h"

namespace textnlp_fast {
namespace {
namespace avx2 {

TEXTNLP_FAST_INLINE __m256i set8(unsigned value) { return _mm256_set1_epi8(static_cast<char>(value)); }

// Sixteen bytes for a byte shuffle, in both halves.
TEXTNLP_FAST_INLINE __m256i twice(const std::uint8_t* bytes) { return _mm256_broadcastsi128_si256(load128(bytes)); }

TEXTNLP_FAST_INLINE Pair unpack(__m256i low_bytes, __m256i high_bytes) {
  return {_mm256_unpacklo_epi8(low_bytes, high_bytes), _mm256_unpackhi_epi8(low_bytes, high_bytes)};
}

struct TwoBytes {
  using Word = std::uint16_t;

  static TEXTNLP_FAST_INLINE Pair load(const std::uint8_t* data, std::size_t element) {
    return load_pair(data, element);
  }

  static TEXTNLP_FAST_INLINE void store(std::uint8_t* data, std::size_t element, const Pair& value) {
    store_pair(data, element, value);
  }

  // turned() of ordered.h: value ^ 0x7fff where the top bits differ.
  template <bool kFloat>
  static TEXTNLP_FAST_INLINE __m256i turned(__m256i value, __m256i base) {
    if (!kFloat) return value;
    const __m256i crossed = _mm256_srai_epi16(_mm256_xor_si256(value, base), 15);
    return _mm256_xor_si256(value, _mm256_and_si256(crossed, set16(0x7fff)));
  }

  template <bool kFloat>
  static TEXTNLP_FAST_INLINE __m256i residual_between(__m256i to, __m256i from) {
    return _mm256_sub_epi16(turned<kFloat>(to, from), from);
  }
};

// The upper half of a loaded lane is 0; what is stored is the lower one.
struct OneByte {
  using Word = std::uint8_t;

  static TEXTNLP_FAST_INLINE Pair load(const std::uint8_t* data, std::size_t element) {
    return load_bytes(data + element);
  }

  static TEXTNLP_FAST_INLINE void store(std::uint8_t* data, std::size_t element, const Pair& value) {
    const __m256i lower = set16(0xff);
    store_bytes(data + element, {_mm256_and_si256(value.a, lower), _mm256_and_si256(value.b, lower)});
  }

  static TEXTNLP_FAST_INLINE __m256i sign_extended(__m256i value) {
    return _mm256_srai_epi16(_mm256_slli_epi16(value, 8), 8);
  }

  template <bool kFloat>
  static TEXTNLP_FAST_INLINE __m256i turned(__m256i value, __m256i base) {
    if (!kFloat) return value;
    const __m256i crossed = _mm256_srai_epi16(_mm256_slli_epi16(_mm256_xor_si256(value, base), 8), 15);
    return _mm256_xor_si256(value, _mm256_and_si256(crossed, set16(0x7f)));
  }

  // As a signed number of 16 bits.
  template <bool kFloat>
  static TEXTNLP_FAST_INLINE __m256i residual_between(__m256i to, __m256i from) {
    return sign_extended(_mm256_sub_epi16(turned<kFloat>(to, from), from));
  }
};

// Base elements to table numbers. The context field must fit a byte.
struct ContextOf {
  __m128i shift;
  __m256i mask;
  __m256i first;
  __m256i last;

  explicit ContextOf(const DeltaRule& rule)
      : shift(count_of(rule.element.context_shift)),
        mask(set16(rule.element.context_mask)),
        first(set8(rule.context_base)),
        last(set8(rule.contexts - 1)) {}

  // As bytes, packed.
  TEXTNLP_FAST_INLINE __m256i operator()(const Pair& base) const {
    const __m256i field = _mm256_packus_epi16(_mm256_and_si256(_mm256_srl_epi16(base.a, shift), mask),
                                              _mm256_and_si256(_mm256_srl_epi16(base.b, shift), mask));
    return _mm256_min_epu8(_mm256_subs_epu8(field, first), last);
  }
};

constexpr std::uint32_t kMostContextMask = 255;

// A number of 16 bits for each of up to 32 contexts, as four shuffle tables: lower and upper bytes of contexts 0 to 15
// and of the rest.
struct ContextNumbers {
  alignas(16) std::uint8_t bytes[4][16];

  void set(unsigned context, unsigned number) {
    bytes[context / 16][context % 16] = static_cast<std::uint8_t>(number);
    bytes[2 + context / 16][context % 16] = static_cast<std::uint8_t>(number >> 8);
  }
};

struct ContextIndex {
  __m256i below_16;
  __m256i above_15;

  // A shuffle gives zero where the top bit of the index is set.
  TEXTNLP_FAST_INLINE explicit ContextIndex(__m256i context)
      : below_16(_mm256_add_epi8(context, set8(0x70))), above_15(_mm256_add_epi8(context, set8(0xf0))) {}

  TEXTNLP_FAST_INLINE Pair find(const ContextNumbers& numbers) const {
    const __m256i low = _mm256_or_si256(_mm256_shuffle_epi8(twice(numbers.bytes[0]), below_16),
                                        _mm256_shuffle_epi8(twice(numbers.bytes[1]), above_15));
    const __m256i high = _mm256_or_si256(_mm256_shuffle_epi8(twice(numbers.bytes[2]), below_16),
                                         _mm256_shuffle_epi8(twice(numbers.bytes[3]), above_15));
    return unpack(low, high);
  }
};

// Tokens back to residuals: origin and raw bits of up to 64 tokens, by shuffle.
struct ResidualOf {
  static constexpr unsigned kMostTokens = 64;
  static constexpr unsigned kMostBits = 15;  // raw bits
  struct Part {
    alignas(16) std::uint8_t low[16];
    alignas(16) std::uint8_t high[16];
    alignas(16) std::uint8_t bits[16];
  };
  Part parts[kMostTokens / 16] = {};
  unsigned part_count;
  __m256i last_direct;
  // By raw bits n: 2^n - 1 and 2^(16 - n), in halves.
  Part mask = {};
  Part scale = {};

  ResidualOf(TokenScheme scheme, unsigned tokens)
      : part_count((tokens + 15) / 16), last_direct(set16(2 * scheme.direct)) {
    for (unsigned t = 0; t < tokens; ++t) {
      const auto origin = static_cast<std::uint16_t>(token_origin(t, scheme));
      parts[t / 16].low[t % 16] = static_cast<std::uint8_t>(origin);
      parts[t / 16].high[t % 16] = static_cast<std::uint8_t>(origin >> 8);
      parts[t / 16].bits[t % 16] = static_cast<std::uint8_t>(raw_bits_of(t, scheme));
    }
    for (unsigned n = 0; n <= kMostBits; ++n) {
      const unsigned ones = (1u << n) - 1;
      const unsigned power = n == 0 ? 0 : 1u << (16 - n);
      mask.low[n] = static_cast<std::uint8_t>(ones);
      mask.high[n] = static_cast<std::uint8_t>(ones >> 8);
      scale.low[n] = static_cast<std::uint8_t>(power);
      scale.high[n] = static_cast<std::uint8_t>(power >> 8);
    }
  }

  // Takes the raw bits of a step out of the states and returns the residuals.
  template <bool kMaySkip>
  TEXTNLP_FAST_INLINE Pair take(const Pair& token, Lanes& lanes, SegmentStream& stream) const {
    if (kMaySkip) {
      const Pair bucket = {_mm256_cmpgt_epi16(token.a, last_direct), _mm256_cmpgt_epi16(token.b, last_direct)};
      if (!any(bucket)) return {direct(token.a), direct(token.b)};
    }
    const __m256i packed = _mm256_packus_epi16(token.a, token.b);
    __m256i low = _mm256_setzero_si256();
    __m256i high = _mm256_setzero_si256();
    __m256i bits = _mm256_setzero_si256();
    for (unsigned p = 0; p < part_count; ++p) {
      // 0x70 to 0x7f for the tokens of this part, 0x80 and more for others.
      const __m256i index = _mm256_adds_epu8(_mm256_xor_si256(packed, set8(16 * p)), set8(0x70));
      low = _mm256_or_si256(low, _mm256_shuffle_epi8(twice(parts[p].low), index));
      high = _mm256_or_si256(high, _mm256_shuffle_epi8(twice(parts[p].high), index));
      bits = _mm256_or_si256(bits, _mm256_shuffle_epi8(twice(parts[p].bits), index));
    }
    const Pair origin = unpack(low, high);
    const Pair masks = unpack(_mm256_shuffle_epi8(twice(mask.low), bits), _mm256_shuffle_epi8(twice(mask.high), bits));
    const Pair scales =
        unpack(_mm256_shuffle_epi8(twice(scale.low), bits), _mm256_shuffle_epi8(twice(scale.high), bits));
    const Pair raw = {_mm256_and_si256(lanes.low.a, masks.a), _mm256_and_si256(lanes.low.b, masks.b)};
    drop(lanes.high.a, lanes.low.a, scales.a);
    drop(lanes.high.b, lanes.low.b, scales.b);
    refill(lanes, stream);
    return {residual(origin.a, raw.a), residual(origin.b, raw.b)};
  }

  // Shifts a state right by n bits, given 2^(16 - n): a product's upper half. 0 stands for no shift.
  static TEXTNLP_FAST_INLINE void drop(__m256i& high, __m256i& low, __m256i scale) {
    const __m256i none = _mm256_cmpeq_epi16(scale, _mm256_setzero_si256());
    const __m256i shifted = _mm256_or_si256(_mm256_mulhi_epu16(low, scale), _mm256_mullo_epi16(high, scale));
    low = _mm256_or_si256(shifted, _mm256_and_si256(low, none));
    high = _mm256_or_si256(_mm256_mulhi_epu16(high, scale), _mm256_and_si256(high, none));
  }

 private:
  // Residuals of direct tokens: 0, +1, -1, +2, -2, ...
  static TEXTNLP_FAST_INLINE __m256i direct(__m256i token) {
    const __m256i one = set16(1);
    const __m256i size = _mm256_srli_epi16(_mm256_add_epi16(token, one), 1);
    const __m256i negative = _mm256_sub_epi16(_mm256_and_si256(token, one), one);
    return _mm256_sub_epi16(_mm256_xor_si256(size, negative), negative);
  }

  static TEXTNLP_FAST_INLINE __m256i residual(__m256i origin, __m256i raw) {
    const __m256i negative = _mm256_srai_epi16(origin, 15);
    return _mm256_add_epi16(origin, _mm256_sub_epi16(_mm256_xor_si256(raw, negative), negative));
  }
};

// The same for single bytes: any number of tokens, and residuals modulo 256, which is all that is stored of them.
struct ByteResidualOf {
  struct Part {
    alignas(16) std::uint8_t origin[16];
    alignas(16) std::uint8_t bits[16];
  };
  Part parts[kMaxTokens / 16] = {};
  unsigned part_count;
  // By raw bits n, at most 7: 2^n - 1, and the upper byte of 2^(16 - n).
  alignas(16) std::uint8_t mask[16] = {};
  alignas(16) std::uint8_t scale[16] = {};

  ByteResidualOf(TokenScheme scheme, unsigned tokens) : part_count((tokens + 15) / 16) {
    for (unsigned t = 0; t < tokens; ++t) {
      parts[t / 16].origin[t % 16] = static_cast<std::uint8_t>(token_origin(t, scheme));
      parts[t / 16].bits[t % 16] = static_cast<std::uint8_t>(raw_bits_of(t, scheme));
    }
    for (unsigned n = 1; n < 8; ++n) {
      mask[n] = static_cast<std::uint8_t>((1u << n) - 1);
      scale[n] = static_cast<std::uint8_t>(1u << (8 - n));
    }
  }

  template <bool kMaySkip>
  TEXTNLP_FAST_INLINE Pair take(const Pair& token, Lanes& lanes, SegmentStream& stream) const {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i packed = _mm256_packus_epi16(token.a, token.b);
    __m256i origins = zero;
    __m256i bits = zero;
    for (unsigned p = 0; p < part_count; ++p) {
      // 0x70 to 0x7f for the tokens of this part, 0x80 and more for others.
      const __m256i index = _mm256_adds_epu8(_mm256_xor_si256(packed, set8(16 * p)), set8(0x70));
      origins = _mm256_or_si256(origins, _mm256_shuffle_epi8(twice(parts[p].origin), index));
      bits = _mm256_or_si256(bits, _mm256_shuffle_epi8(twice(parts[p].bits), index));
    }
    const Pair origin = unpack(origins, zero);
    if (_mm256_testz_si256(bits, bits) != 0) return origin;
    const Pair masks = unpack(_mm256_shuffle_epi8(twice(mask), bits), zero);
    const Pair scales = unpack(zero, _mm256_shuffle_epi8(twice(scale), bits));
    const Pair raw = {_mm256_and_si256(lanes.low.a, masks.a), _mm256_and_si256(lanes.low.b, masks.b)};
    ResidualOf::drop(lanes.high.a, lanes.low.a, scales.a);
    ResidualOf::drop(lanes.high.b, lanes.low.b, scales.b);
    refill(lanes, stream);
    return {residual(token.a, origin.a, raw.a), residual(token.b, origin.b, raw.b)};
  }

 private:
  // Even tokens are negative; token 0 has no raw bits.
  static TEXTNLP_FAST_INLINE __m256i residual(__m256i token, __m256i origin, __m256i raw) {
    const __m256i negative = _mm256_cmpeq_epi16(_mm256_and_si256(token, set16(1)), _mm256_setzero_si256());
    return _mm256_add_epi16(origin, _mm256_sub_epi16(_mm256_xor_si256(raw, negative), negative));
  }
};

template <class Element>
struct Residuals {
  using Of = ResidualOf;
};

template <>
struct Residuals<OneByte> {
  using Of = ByteResidualOf;
};

}  // namespace avx2
}  // namespace
}  // namespace textnlp_fast
