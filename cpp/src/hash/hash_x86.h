// What the AVX2 and the AVX-512 file have in common: eight lanes in 256 bits and rows of 128 bits, less the rotations.
#pragma once
#include <immintrin.h>

#include "hash/hash_constants.h"
#include "hash/hash_rows.h"

namespace textnlp_fast {
namespace {

struct Lanes8Base {
  using Reg = __m256i;
  static constexpr std::size_t kLanes = 8;
  static Reg splat(std::uint32_t word) { return _mm256_set1_epi32(static_cast<int>(word)); }
  static Reg load(const std::uint32_t* words) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(words)); }
  static Reg add(Reg a, Reg b) { return _mm256_add_epi32(a, b); }
  static Reg exclusive_or(Reg a, Reg b) { return _mm256_xor_si256(a, b); }
  [[gnu::always_inline]] static void prefetch(const void* address) {
    _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T0);
  }

  // 16 bytes of lane `low` in the lower half, of lane `high` in the upper one.
  static Reg pair(const std::uint8_t* low, const std::uint8_t* high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low))),
                                   _mm_loadu_si128(reinterpret_cast<const __m128i*>(high)), 1);
  }

  // Four words of every lane: the halves are put in place by the loads, so two unpacks finish the transposition.
  [[gnu::always_inline]] static void load_quarter(const std::uint8_t* const* lanes, std::size_t at, Reg* m) {
    const Reg x0 = pair(lanes[0] + at, lanes[4] + at), x1 = pair(lanes[1] + at, lanes[5] + at);
    const Reg x2 = pair(lanes[2] + at, lanes[6] + at), x3 = pair(lanes[3] + at, lanes[7] + at);
    const Reg low01 = _mm256_unpacklo_epi32(x0, x1), high01 = _mm256_unpackhi_epi32(x0, x1);
    const Reg low23 = _mm256_unpacklo_epi32(x2, x3), high23 = _mm256_unpackhi_epi32(x2, x3);
    m[0] = _mm256_unpacklo_epi64(low01, low23);
    m[1] = _mm256_unpackhi_epi64(low01, low23);
    m[2] = _mm256_unpacklo_epi64(high01, high23);
    m[3] = _mm256_unpackhi_epi64(high01, high23);
  }
  [[gnu::always_inline]] static void load_message(const std::uint8_t* const* lanes, std::size_t at, Reg* m) {
    load_quarter(lanes, at, m);
    load_quarter(lanes, at + 16, m + 4);
    load_quarter(lanes, at + 32, m + 8);
    load_quarter(lanes, at + 48, m + 12);
  }

  static void store_half(const Reg* h, std::uint8_t* const* outs, std::size_t at) {
    const Reg low01 = _mm256_unpacklo_epi32(h[0], h[1]), high01 = _mm256_unpackhi_epi32(h[0], h[1]);
    const Reg low23 = _mm256_unpacklo_epi32(h[2], h[3]), high23 = _mm256_unpackhi_epi32(h[2], h[3]);
    const Reg lane[4] = {_mm256_unpacklo_epi64(low01, low23), _mm256_unpackhi_epi64(low01, low23),
                         _mm256_unpacklo_epi64(high01, high23), _mm256_unpackhi_epi64(high01, high23)};
    for (std::size_t i = 0; i < 4; ++i) {
      auto* const lower = reinterpret_cast<__m128i*>(outs[i] + at);
      auto* const upper = reinterpret_cast<__m128i*>(outs[i + 4] + at);
      _mm_storeu_si128(lower, _mm256_castsi256_si128(lane[i]));
      _mm_storeu_si128(upper, _mm256_extracti128_si256(lane[i], 1));
    }
  }
  static void store_values(const Reg* h, std::uint8_t* const* outs) {
    store_half(h, outs, 0);
    store_half(h + 4, outs, 16);
  }
};

struct RowsBase {
  using Reg = __m128i;
  static Reg set(std::uint32_t w0, std::uint32_t w1, std::uint32_t w2, std::uint32_t w3) {
    return _mm_set_epi32(static_cast<int>(w3), static_cast<int>(w2), static_cast<int>(w1), static_cast<int>(w0));
  }
  static Reg load(const void* words) { return _mm_loadu_si128(static_cast<const __m128i*>(words)); }
  static void store(void* words, Reg row) { _mm_storeu_si128(static_cast<__m128i*>(words), row); }
  static Reg add(Reg a, Reg b) { return _mm_add_epi32(a, b); }
  static Reg exclusive_or(Reg a, Reg b) { return _mm_xor_si128(a, b); }
  template <int k>
  static Reg turn(Reg row) {
    return _mm_shuffle_epi32(row, _MM_SHUFFLE((k + 3) % 4, (k + 2) % 4, (k + 1) % 4, k % 4));
  }
};

}  // namespace
}  // namespace textnlp_fast
