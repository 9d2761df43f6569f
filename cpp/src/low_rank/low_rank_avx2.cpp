// Eight floats. Halves go through integers: the dispatch does not ask for F16C.
#include <immintrin.h>

#include "low_rank/low_rank_row.h"

namespace textnlp_fast {
namespace {

inline __m256i whole(std::uint32_t value) { return _mm256_set1_epi32(static_cast<int>(value)); }
inline __m256i bits_of(__m256 value) { return _mm256_castps_si256(value); }
inline __m256 floats_of(__m256i bits) { return _mm256_castsi256_ps(bits); }

// Eight 32-bit numbers below 2^16 to sixteen bytes.
inline void store_low(std::uint8_t* to, __m256i words) {
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}

inline __m256i load_words(const std::uint8_t* from) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

inline __m256i nans_of(__m256 value) { return bits_of(_mm256_cmp_ps(value, value, _CMP_UNORD_Q)); }

inline __m256i to_bf16(__m256 value) {
  const __m256i bits = bits_of(value);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), whole(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, whole(0x7fff)), odd), 16);
  return _mm256_blendv_epi8(rounded, whole(kQuietNan >> 16), nans_of(value));
}

inline __m256 from_f16(__m256i half) {
  const __m256i magnitude = _mm256_and_si256(half, whole(0x7fff));
  const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(half, whole(0x8000)), 16);
  const __m256i shifted = _mm256_slli_epi32(magnitude, 13);
  const __m256i finite = bits_of(_mm256_mul_ps(floats_of(shifted), _mm256_set1_ps(0x1p112F)));
  const __m256i special = _mm256_or_si256(shifted, whole(kInfinity));
  const __m256i is_special = _mm256_cmpgt_epi32(magnitude, whole(0x7bff));
  return floats_of(_mm256_or_si256(sign, _mm256_blendv_epi8(finite, special, is_special)));
}

inline __m256i to_f16(__m256 value) {
  const __m256i bits = bits_of(value);
  const __m256i sign = _mm256_and_si256(_mm256_srli_epi32(bits, 16), whole(0x8000));
  const __m256i magnitude = _mm256_and_si256(bits, whole(0x7fffffff));
  const __m256i small =
      _mm256_sub_epi32(bits_of(_mm256_add_ps(floats_of(magnitude), _mm256_set1_ps(0.5F))), whole(0x3f000000));
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(magnitude, 13), whole(1));
  const __m256i biased = _mm256_sub_epi32(magnitude, whole(0x38000000 - 0xfff));
  const __m256i normal = _mm256_srli_epi32(_mm256_add_epi32(biased, odd), 13);
  __m256i half = _mm256_blendv_epi8(normal, small, _mm256_cmpgt_epi32(whole(0x38800000), magnitude));
  half = _mm256_blendv_epi8(half, whole(0x7c00), _mm256_cmpgt_epi32(magnitude, whole(0x477fefff)));
  return _mm256_blendv_epi8(_mm256_or_si256(half, sign), whole(0x7e00), nans_of(value));
}

struct Avx2 {
  using Floats = __m256;
  static constexpr std::size_t kWidth = 8;
  static __m256 zero() { return _mm256_setzero_ps(); }
  static __m256 set(float value) { return _mm256_set1_ps(value); }
  static __m256 load(const float* from) { return _mm256_loadu_ps(from); }
  static __m256 fma(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
  static __m256 mul(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }
  static __m256 add(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }

  template <class T>
  static __m256 widen(const std::uint8_t* from) {
    if constexpr (__is_same(T, F32)) {
      return floats_of(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    } else if constexpr (__is_same(T, Bf16)) {
      return floats_of(_mm256_slli_epi32(load_words(from), 16));
    } else {
      return from_f16(load_words(from));
    }
  }

  template <class T>
  static void narrow(std::uint8_t* to, __m256 value) {
    if constexpr (__is_same(T, F32)) {
      const __m256i kept = _mm256_blendv_epi8(bits_of(value), whole(kQuietNan), nans_of(value));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), kept);
    } else if constexpr (__is_same(T, Bf16)) {
      store_low(to, to_bf16(value));
    } else {
      store_low(to, to_f16(value));
    }
  }

  template <class T>
  static __m256 round(__m256 value) {
    if constexpr (__is_same(T, F32)) {
      return value;
    } else if constexpr (__is_same(T, Bf16)) {
      return floats_of(_mm256_slli_epi32(to_bf16(value), 16));
    } else {
      return from_f16(to_f16(value));
    }
  }
};

}  // namespace

const LowRankKernels low_rank_kernels_avx2 = {"avx2", low_rank_row<Avx2, Bf16>, low_rank_row<Avx2, F16>,
                                              low_rank_row<Avx2, F32>};

}  // namespace textnlp_fast
