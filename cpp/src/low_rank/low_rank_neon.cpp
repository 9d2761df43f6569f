// Four floats; halves by the base instruction set's conversions.
#include <arm_neon.h>

#include "low_rank/low_rank_row.h"

namespace textnlp_fast {
namespace {

inline float32x4_t one_nan(float32x4_t value) {
  return vbslq_f32(vceqq_f32(value, value), value, vreinterpretq_f32_u32(vdupq_n_u32(kQuietNan)));
}

inline uint32x4_t to_bf16(float32x4_t value) {
  const uint32x4_t bits = vreinterpretq_u32_f32(value);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vshrq_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), 16);
  return vbslq_u32(vceqq_f32(value, value), rounded, vdupq_n_u32(kQuietNan >> 16));
}

inline uint16x4_t load_words(const std::uint8_t* from) { return vreinterpret_u16_u8(vld1_u8(from)); }
inline void store_words(std::uint8_t* to, uint16x4_t words) { vst1_u8(to, vreinterpret_u8_u16(words)); }

struct Neon {
  using Floats = float32x4_t;
  static constexpr std::size_t kWidth = 4;
  static float32x4_t zero() { return vdupq_n_f32(0); }
  static float32x4_t set(float value) { return vdupq_n_f32(value); }
  static float32x4_t load(const float* from) { return vld1q_f32(from); }
  static float32x4_t fma(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
  static float32x4_t mul(float32x4_t a, float32x4_t b) { return vmulq_f32(a, b); }
  static float32x4_t add(float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); }

  template <class T>
  static float32x4_t widen(const std::uint8_t* from) {
    if constexpr (__is_same(T, F32)) {
      return vreinterpretq_f32_u8(vld1q_u8(from));
    } else if constexpr (__is_same(T, Bf16)) {
      return vreinterpretq_f32_u32(vshll_n_u16(load_words(from), 16));
    } else {
      return vcvt_f32_f16(vreinterpret_f16_u16(load_words(from)));
    }
  }

  template <class T>
  static void narrow(std::uint8_t* to, float32x4_t value) {
    if constexpr (__is_same(T, F32)) {
      vst1q_u8(to, vreinterpretq_u8_f32(one_nan(value)));
    } else if constexpr (__is_same(T, Bf16)) {
      store_words(to, vmovn_u32(to_bf16(value)));
    } else {
      store_words(to, vreinterpret_u16_f16(vcvt_f16_f32(one_nan(value))));
    }
  }

  template <class T>
  static float32x4_t round(float32x4_t value) {
    if constexpr (__is_same(T, F32)) {
      return value;
    } else if constexpr (__is_same(T, Bf16)) {
      return vreinterpretq_f32_u32(vshlq_n_u32(to_bf16(value), 16));
    } else {
      return vcvt_f32_f16(vcvt_f16_f32(one_nan(value)));
    }
  }
};

}  // namespace

const LowRankKernels low_rank_kernels_neon = {"neon", low_rank_row<Neon, Bf16>, low_rank_row<Neon, F16>,
                                              low_rank_row<Neon, F32>};

}  // namespace textnlp_fast
