// Sixteen floats; halves by the conversions of AVX-512F.
#include <immintrin.h>

#include "low_rank/low_rank_row.h"

namespace textnlp_fast {
namespace {

inline __m512i whole(std::uint32_t value) { return _mm512_set1_epi32(static_cast<int>(value)); }
inline __mmask16 nans_of(__m512 value) { return _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q); }

inline __m256i load_words(const std::uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
inline void store_words(std::uint8_t* to, __m256i words) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), words); }

inline __m512i to_bf16(__m512 value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), whole(1));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, whole(0x7fff)), odd), 16);
  return _mm512_mask_mov_epi32(rounded, nans_of(value), whole(kQuietNan >> 16));
}

// One NaN for all, before the conversion: it would keep payloads.
inline __m256i to_f16(__m512 value) {
  const __m512 kept = _mm512_mask_mov_ps(value, nans_of(value), _mm512_castsi512_ps(whole(kQuietNan)));
  return _mm512_cvtps_ph(kept, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

struct Avx512 {
  using Floats = __m512;
  static constexpr std::size_t kWidth = 16;
  static __m512 zero() { return _mm512_setzero_ps(); }
  static __m512 set(float value) { return _mm512_set1_ps(value); }
  static __m512 load(const float* from) { return _mm512_loadu_ps(from); }
  static __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
  static __m512 mul(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }
  static __m512 add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }

  template <class T>
  static __m512 widen(const std::uint8_t* from) {
    if constexpr (__is_same(T, F32)) {
      return _mm512_loadu_ps(from);
    } else if constexpr (__is_same(T, Bf16)) {
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_words(from)), 16));
    } else {
      return _mm512_cvtph_ps(load_words(from));
    }
  }

  template <class T>
  static void narrow(std::uint8_t* to, __m512 value) {
    if constexpr (__is_same(T, F32)) {
      _mm512_storeu_ps(to, _mm512_mask_mov_ps(value, nans_of(value), _mm512_castsi512_ps(whole(kQuietNan))));
    } else if constexpr (__is_same(T, Bf16)) {
      store_words(to, _mm512_cvtepi32_epi16(to_bf16(value)));
    } else {
      store_words(to, to_f16(value));
    }
  }

  template <class T>
  static __m512 round(__m512 value) {
    if constexpr (__is_same(T, F32)) {
      return value;
    } else if constexpr (__is_same(T, Bf16)) {
      return _mm512_castsi512_ps(_mm512_slli_epi32(to_bf16(value), 16));
    } else {
      return _mm512_cvtph_ps(to_f16(value));
    }
  }
};

}  // namespace

const LowRankKernels low_rank_kernels_avx512 = {"avx512", low_rank_row<Avx512, Bf16>, low_rank_row<Avx512, F16>,
                                                low_rank_row<Avx512, F32>};

}  // namespace textnlp_fast
