// Outcomes of steps on AVX-512, thirty-two elements of two bytes at a time.
#pragma once
#include "codec/avx512_residuals.h"
#include "codec/steps_scalar.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

static_assert(kStepGroup == kLanes, "a step of lanes is a group");

// Bfloat16::narrow() of sixteen numbers.
TEXTNLP_FAST_INLINE __m256i bf16_of(__m512 value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

TEXTNLP_FAST_INLINE __m512i bf16_pair(__m512 first, __m512 second) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(bf16_of(first)), bf16_of(second), 1);
}

TEXTNLP_FAST_INLINE __m512 bf16_wide(__m256i words) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

void bf16_steps(const std::uint8_t* base, std::size_t count, float size, std::uint8_t* up, std::uint8_t* down) {
  const __m512 step = _mm512_set1_ps(size);
  const __m512i exponent = set16(Bfloat16::kExponent);
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m512i from = load16(base, i);
    const __m512 first = bf16_wide(_mm512_castsi512_si256(from));
    const __m512 second = bf16_wide(_mm512_extracti64x4_epi64(from, 1));
    const __mmask32 finite = _mm512_cmpneq_epi16_mask(_mm512_and_si512(from, exponent), exponent);
    const __m512i raised = bf16_pair(_mm512_add_ps(first, step), _mm512_add_ps(second, step));
    const __m512i lowered = bf16_pair(_mm512_sub_ps(first, step), _mm512_sub_ps(second, step));
    _mm512_storeu_si512(up + 2 * i, _mm512_mask_mov_epi16(from, finite, raised));
    _mm512_storeu_si512(down + 2 * i, _mm512_mask_mov_epi16(from, finite, lowered));
  }
  step_all<Bfloat16>(base, i, count, size, up, down);
}

TEXTNLP_FAST_INLINE __mmask32 movable(__m512i from, __m512i up, __m512i down) {
  return _mm512_cmpneq_epi16_mask(up, from) | _mm512_cmpneq_epi16_mask(down, from);
}

std::size_t steps_count(const std::uint8_t* base, const std::uint8_t* up, const std::uint8_t* down, std::size_t count) {
  std::size_t total = 0;
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    total += static_cast<unsigned>(__builtin_popcount(movable(load16(base, i), load16(up, i), load16(down, i))));
  }
  return total + count_moves<std::uint16_t>(base, up, down, i, count);
}

std::size_t steps_tell(const std::uint8_t* target, const std::uint8_t* base, const std::uint8_t* up,
                       const std::uint8_t* down, std::size_t count, std::uint32_t* odd, std::uint8_t* directions) {
  BitTail tail(directions);
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m512i to = load16(target, i);
    const __m512i raised = load16(up, i);
    const __m512i lowered = load16(down, i);
    const __mmask32 is_up = _mm512_cmpeq_epi16_mask(to, raised);
    const __mmask32 can = movable(load16(base, i), raised, lowered);
    odd[i / kLanes] = ~(is_up | _mm512_cmpeq_epi16_mask(to, lowered));
    tail.put(_pext_u32(is_up, can), static_cast<unsigned>(__builtin_popcount(can)));
  }
  tell_moves<std::uint16_t>(target, base, up, down, i, count, odd, tail);
  return tail.total;
}

void steps_take(const std::uint8_t* base, const std::uint8_t* up, const std::uint8_t* down,
                const std::uint8_t* directions, std::size_t count, std::uint8_t* target) {
  std::size_t bit = 0;
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m512i raised = load16(up, i);
    const __m512i lowered = load16(down, i);
    const __mmask32 can = movable(load16(base, i), raised, lowered);
    std::uint64_t told;
    std::memcpy(&told, directions + bit / 8, sizeof told);
    const __mmask32 is_up = _pdep_u32(static_cast<std::uint32_t>(told >> bit % 8), can);
    _mm512_storeu_si512(target + 2 * i, _mm512_mask_mov_epi16(lowered, is_up, raised));
    bit += static_cast<unsigned>(__builtin_popcount(can));
  }
  take_moves<std::uint16_t>(base, up, down, directions, bit, i, count, target);
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast
