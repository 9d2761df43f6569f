// Elements of one and two bytes to contexts, residuals and tokens, thirty-two at a time, each in a lane of 16 bits.
#pragma once
#include "codec/avx512_bytes.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

TEXTNLP_FAST_INLINE __m512i load16(const std::uint8_t* data, std::size_t element) {
  return _mm512_loadu_si512(data + 2 * element);
}

TEXTNLP_FAST_INLINE __m512i set16(unsigned value) { return _mm512_set1_epi16(static_cast<short>(value)); }

// Base elements to table numbers.
struct ContextOf {
  __m128i shift;
  __m512i mask;
  __m512i first;
  __m512i last;

  explicit ContextOf(const DeltaRule& rule)
      : shift(_mm_cvtsi32_si128(static_cast<int>(rule.element.context_shift))),
        mask(set16(rule.element.context_mask)),
        first(set16(rule.context_base)),
        last(set16(rule.contexts - 1)) {}

  TEXTNLP_FAST_INLINE __m512i operator()(__m512i base) const {
    const __m512i field = _mm512_and_si512(_mm512_srl_epi16(base, shift), mask);
    return _mm512_min_epu16(_mm512_subs_epu16(field, first), last);
  }
};

struct TwoBytes {
  using Word = std::uint16_t;

  static TEXTNLP_FAST_INLINE __m512i load(const std::uint8_t* data, std::size_t element) {
    return load16(data, element);
  }

  static TEXTNLP_FAST_INLINE void store(std::uint8_t* data, std::size_t element, __m512i value) {
    _mm512_storeu_si512(data + 2 * element, value);
  }

  // turned() of ordered.h: value ^ 0x7fff where the top bits differ.
  template <bool kFloat>
  static TEXTNLP_FAST_INLINE __m512i turned(__m512i value, __m512i base) {
    if (!kFloat) return value;
    return _mm512_ternarylogic_epi64(value, _mm512_srai_epi16(_mm512_xor_si512(value, base), 15), set16(0x7fff), 0x78);
  }

  template <bool kFloat>
  static TEXTNLP_FAST_INLINE __m512i residual_between(__m512i to, __m512i from) {
    return _mm512_sub_epi16(turned<kFloat>(to, from), from);
  }
};

// The upper half of a loaded lane is 0; what is stored is the lower one.
struct OneByte {
  using Word = std::uint8_t;

  static TEXTNLP_FAST_INLINE __m512i load(const std::uint8_t* data, std::size_t element) {
    return load_bytes(data + element);
  }

  static TEXTNLP_FAST_INLINE void store(std::uint8_t* data, std::size_t element, __m512i value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(data + element), _mm512_cvtepi16_epi8(value));
  }

  static TEXTNLP_FAST_INLINE __m512i sign_extended(__m512i value) {
    return _mm512_srai_epi16(_mm512_slli_epi16(value, 8), 8);
  }

  template <bool kFloat>
  static TEXTNLP_FAST_INLINE __m512i turned(__m512i value, __m512i base) {
    if (!kFloat) return value;
    const __m512i crossed = _mm512_srai_epi16(_mm512_slli_epi16(_mm512_xor_si512(value, base), 8), 15);
    return _mm512_ternarylogic_epi64(value, crossed, set16(0x7f), 0x78);
  }

  // As a signed number of 16 bits.
  template <bool kFloat>
  static TEXTNLP_FAST_INLINE __m512i residual_between(__m512i to, __m512i from) {
    return sign_extended(_mm512_sub_epi16(turned<kFloat>(to, from), from));
  }
};

// Prefetchers of the hardware stop where pages end, so a pass over memory asks for what lies so far ahead of an element
// in its direction, 1 or -1. A hint: what it names need not be there.
template <class Element, int kDirection = 1>
TEXTNLP_FAST_INLINE void ask_ahead(const std::uint8_t* data, std::size_t element) {
  constexpr std::uintptr_t kAhead = 2048;
  const auto at = reinterpret_cast<std::uintptr_t>(data) + element * sizeof(typename Element::Word);
  _mm_prefetch(reinterpret_cast<const char*>(kDirection > 0 ? at + kAhead : at - kAhead), _MM_HINT_T0);
}

// floor(log2) of every lane that is not zero.
TEXTNLP_FAST_INLINE __m512i log2_16(__m512i value) {
  const __m512i even = _mm512_lzcnt_epi32(_mm512_and_si512(value, _mm512_set1_epi32(0xffff)));
  const __m512i odd = _mm512_lzcnt_epi32(_mm512_srli_epi32(value, 16));
  return _mm512_sub_epi16(set16(31), _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
}

struct Tokens {
  __m512i token;
  __m512i raw;       // value of the raw bits
  __m512i raw_bits;  // how many, 0 for direct tokens
};

struct Tokenizer {
  __m512i direct;
  __m512i first_bucket;  // direct + 1
  __m512i shift_origin;  // 2^mantissa - direct - 1
  __m512i mantissa;
  __m128i mantissa_count;
  __m512i lead_mask;

  explicit Tokenizer(TokenScheme scheme)
      : direct(set16(scheme.direct)),
        first_bucket(set16(scheme.direct + 1)),
        shift_origin(set16((1u << scheme.mantissa) - scheme.direct - 1)),
        mantissa(set16(scheme.mantissa)),
        mantissa_count(_mm_cvtsi32_si128(static_cast<int>(scheme.mantissa))),
        lead_mask(set16((1u << scheme.mantissa) - 1)) {}

  template <bool kRaw>
  TEXTNLP_FAST_INLINE Tokens operator()(__m512i residual) const {
    const __m512i size = _mm512_abs_epi16(residual);
    const __mmask32 logarithmic = _mm512_cmpgt_epu16_mask(size, direct);
    Tokens tokens;
    tokens.raw = _mm512_setzero_si512();
    tokens.raw_bits = _mm512_setzero_si512();
    __m512i bucket = size;
    if (logarithmic != 0) {
      const __m512i shifted = _mm512_add_epi16(size, shift_origin);
      const __m512i low = _mm512_sub_epi16(log2_16(shifted), mantissa);
      const __m512i lead = _mm512_and_si512(_mm512_srlv_epi16(shifted, low), lead_mask);
      const __m512i number =
          _mm512_add_epi16(_mm512_add_epi16(first_bucket, _mm512_sll_epi16(low, mantissa_count)), lead);
      bucket = _mm512_mask_mov_epi16(bucket, logarithmic, number);
      if (kRaw) {
        tokens.raw =
            _mm512_maskz_mov_epi16(logarithmic, _mm512_andnot_si512(_mm512_sllv_epi16(set16(0xffff), low), shifted));
        tokens.raw_bits = _mm512_maskz_mov_epi16(logarithmic, low);
      }
    }
    // 0, +1, -1, +2, -2, ...: twice the bucket, less one for the positive.
    const __m512i doubled = _mm512_add_epi16(bucket, bucket);
    tokens.token =
        _mm512_mask_sub_epi16(doubled, _mm512_cmpgt_epi16_mask(residual, _mm512_setzero_si512()), doubled, set16(1));
    return tokens;
  }
};

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast
