// How entries of tables are fetched on AVX-512, thirty-two 32-bit ones at a time. Which way is quicker depends on the
// processor, so there are two, and two sets of kernels: docs/studies/fetching.md.
#pragma once
#include "codec/avx512_lanes.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

// Entries as their lower and upper halves, in 16-bit lanes.
struct Halves {
  __m512i low;
  __m512i high;
};

// Four 32-bit entries by the 16-bit indices in `four`.
TEXTNLP_FAST_INLINE __m128i fetch4(const std::uint32_t* entries, std::uint64_t four) {
  __m128i found = _mm_cvtsi32_si128(static_cast<int>(entries[four & 0xffff]));
  found = _mm_insert_epi32(found, static_cast<int>(entries[(four >> 16) & 0xffff]), 1);
  found = _mm_insert_epi32(found, static_cast<int>(entries[(four >> 32) & 0xffff]), 2);
  return _mm_insert_epi32(found, static_cast<int>(entries[four >> 48]), 3);
}

TEXTNLP_FAST_INLINE __m512i fetch16(const std::uint32_t* entries, const std::uint64_t* fours) {
  const __m256i low =
      _mm256_inserti128_si256(_mm256_castsi128_si256(fetch4(entries, fours[0])), fetch4(entries, fours[1]), 1);
  const __m256i high =
      _mm256_inserti128_si256(_mm256_castsi128_si256(fetch4(entries, fours[2])), fetch4(entries, fours[3]), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// By loads, one by one. The places go through memory, and what ask() stores is read a round later, so that nobody waits
// for it.
struct OneByOne {
  struct Ahead {
    alignas(64) std::uint64_t fours[8];
  };
  using Symbols = Shares;

  // `index`: thirty-two 16-bit ones.
  static TEXTNLP_FAST_INLINE void ask(Ahead& ahead, const std::uint32_t* /*entries*/, __m512i index) {
    _mm512_store_si512(ahead.fours, index);
  }

  static TEXTNLP_FAST_INLINE Halves halves(const Ahead& ahead, const std::uint32_t* entries) {
    const __m512i front = fetch16(entries, ahead.fours);
    const __m512i back = fetch16(entries, ahead.fours + 4);
    alignas(64) static constexpr std::uint16_t kEven[32] = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20,
                                                            22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42,
                                                            44, 46, 48, 50, 52, 54, 56, 58, 60, 62};
    const __m512i even = _mm512_load_si512(kEven);
    return {_mm512_permutex2var_epi16(front, even, back),
            _mm512_permutex2var_epi16(front, _mm512_or_si512(even, _mm512_set1_epi16(1)), back)};
  }

  static TEXTNLP_FAST_INLINE Symbols symbols(const Ahead& ahead, const std::uint32_t* entries) {
    const Halves found = halves(ahead, entries);
    return shares_of(found.low, found.high);
  }
};

// By two gathers, of the even lanes and of the odd ones.
struct Gathered {
  struct Ahead {
    __m512i even;
    __m512i odd;
  };
  using Symbols = WideShares;

  static TEXTNLP_FAST_INLINE void ask(Ahead& ahead, const std::uint32_t* entries, __m512i index) {
    const WideLanes wide = widen(index);
    ahead.even = _mm512_i32gather_epi32(wide.even, entries, 4);
    ahead.odd = _mm512_i32gather_epi32(wide.odd, entries, 4);
  }

  static TEXTNLP_FAST_INLINE Halves halves(const Ahead& ahead, const std::uint32_t* /*entries*/) {
    return {_mm512_mask_blend_epi16(kOddWords, ahead.even, _mm512_slli_epi32(ahead.odd, 16)),
            _mm512_mask_blend_epi16(kOddWords, _mm512_srli_epi32(ahead.even, 16), ahead.odd)};
  }

  static TEXTNLP_FAST_INLINE Symbols symbols(const Ahead& ahead, const std::uint32_t* /*entries*/) {
    return wide_shares_of(ahead.even, ahead.odd);
  }
};

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast
