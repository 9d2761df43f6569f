// Sparse frames of elements of one and two bytes on AVX-512: a row is a register. Other sizes take the portable
// kernels.
#pragma once
#include "codec/avx512_residuals.h"
#include "codec/sparse_scalar.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

// Counts of fields below 256, in four tables by turns, for an increment waits for the one before it to the same place.
struct FieldCounts {
  std::uint32_t counts[4][256] = {};

  TEXTNLP_FAST_INLINE void add(const std::uint16_t* fields, std::size_t count) {
    std::size_t i = 0;
    for (; i + 4 <= count; i += 4) {
      ++counts[0][fields[i]];
      ++counts[1][fields[i + 1]];
      ++counts[2][fields[i + 2]];
      ++counts[3][fields[i + 3]];
    }
    for (; i < count; ++i) ++counts[0][fields[i]];
  }

  void flush(std::uint32_t* to, std::uint32_t weight) const {
    for (unsigned f = 0; f < 256; ++f) to[f] += weight * (counts[0][f] + counts[1][f] + counts[2][f] + counts[3][f]);
  }
};

template <class Element>
void survey_of(const std::uint8_t* target, const std::uint8_t* base, std::size_t count, ElementRule rule,
               std::uint64_t most, std::uint32_t* masks, SparseSurvey* survey) {
  std::memset(survey, 0, sizeof *survey);
  constexpr std::size_t kPieceSteps = 64;
  std::uint16_t fields[(kPieceSteps + 1) * kLanes];
  std::uint16_t sample[kPieceSteps / kSampleSteps * kLanes];
  FieldCounts counted;
  FieldCounts sampled;
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(rule.context_shift));
  const __m512i mask = set16(rule.context_mask);
  const std::size_t steps = count / kLanes;
  for (std::size_t piece = 0; piece < steps && survey->changed <= most; piece += kPieceSteps) {
    const std::size_t here = steps - piece < kPieceSteps ? steps - piece : kPieceSteps;
    std::size_t found = 0;
    for (std::size_t step = 0; step < here; ++step) {
      const std::size_t at = (piece + step) * kLanes;
      ask_ahead<Element>(base, at);
      ask_ahead<Element>(target, at);
      const __m512i from = Element::load(base, at);
      const __mmask32 changed = _mm512_cmpneq_epi16_mask(Element::load(target, at), from);
      masks[piece + step] = changed;
      const __m512i field = _mm512_and_si512(_mm512_srl_epi16(from, shift), mask);
      _mm512_storeu_si512(fields + found, _mm512_maskz_compress_epi16(changed, field));
      found += static_cast<unsigned>(__builtin_popcount(changed));
      if (step % kSampleSteps == 0) _mm512_storeu_si512(sample + step / kSampleSteps * kLanes, field);
    }
    survey->changed += found;
    if (survey->changed > most) return;
    counted.add(fields, found);
    sampled.add(sample, (here + kSampleSteps - 1) / kSampleSteps * kLanes);
  }
  counted.flush(survey->changed_by_field, 1);
  sampled.flush(survey->sampled, kSampleSteps);
  scalar::sparse_survey<typename Element::Word>(target, base, steps * kLanes, count, rule, most, masks, *survey);
}

void sparse_survey(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                   ElementRule rule, std::uint64_t most, std::uint32_t* masks, SparseSurvey* survey) {
  if (element_size == 1) {
    survey_of<OneByte>(target, base, count, rule, most, masks, survey);
  } else if (element_size == 2) {
    survey_of<TwoBytes>(target, base, count, rule, most, masks, survey);
  } else {
    portable::sparse_survey(element_size, target, base, count, rule, most, masks, survey);
  }
}

// Sums of all lanes before each.
TEXTNLP_FAST_INLINE __m512i sums_before(__m512i value) {
  const __m512i none = _mm512_setzero_si512();
  __m512i sums = _mm512_alignr_epi32(value, none, 15);
  sums = _mm512_add_epi32(sums, _mm512_alignr_epi32(sums, none, 15));
  sums = _mm512_add_epi32(sums, _mm512_alignr_epi32(sums, none, 14));
  sums = _mm512_add_epi32(sums, _mm512_alignr_epi32(sums, none, 12));
  return _mm512_add_epi32(sums, _mm512_alignr_epi32(sums, none, 8));
}

TEXTNLP_FAST_INLINE std::uint32_t last_lane(__m512i value) {
  return static_cast<std::uint32_t>(_mm_extract_epi32(_mm512_extracti32x4_epi32(value, 3), 3));
}

// A whole block.
template <class Element>
void scan_of(const std::uint8_t* base, const SparseRule* rule, SparseBlock* block) {
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(rule->element.context_shift));
  const __m512i mask = set16(rule->element.context_mask);
  const __m512i first = set16(rule->context_base);
  const __m512i listed = set16(rule->listed);
  const __m512i contexts = set16(rule->contexts);
  const __m512i hazards = _mm512_loadu_si512(rule->hazards);
  __m512i sums = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (unsigned row = 0; row < kBlockRows; ++row) {
    const __m512i field = _mm512_and_si512(_mm512_srl_epi16(Element::load(base, row * kLanes), shift), mask);
    const __m512i context = _mm512_subs_epu16(field, first);
    block->listed[row] = _mm512_cmplt_epu16_mask(context, listed);
    _mm512_store_si512(block->before[row], sums);
    const __mmask32 inside = _mm512_cmplt_epu16_mask(context, contexts);
    sums = _mm512_add_epi16(sums, _mm512_maskz_permutexvar_epi16(inside, context, hazards));
  }
  _mm512_store_si512(block->sums, sums);
  const __m512i low = sums_before(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(sums)));
  const __m512i high = sums_before(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(sums, 1)));
  const std::uint32_t half = last_lane(low) + block->sums[15];
  _mm512_storeu_si512(block->columns, low);
  _mm512_storeu_si512(block->columns + 16, _mm512_add_epi32(high, _mm512_set1_epi32(static_cast<int>(half))));
  block->columns[kLanes] = half + last_lane(high) + block->sums[31];
}

void sparse_scan(unsigned element_size, const std::uint8_t* base, std::size_t count, const SparseRule* rule,
                 SparseBlock* block) {
  if (element_size > 2 || count != kBlockElements) {
    portable::sparse_scan(element_size, base, count, rule, block);
  } else if (element_size == 2) {
    scan_of<TwoBytes>(base, rule, block);
  } else {
    scan_of<OneByte>(base, rule, block);
  }
}

unsigned sparse_list(const std::uint32_t* masks, unsigned rows, std::uint16_t* places) {
  alignas(64) static constexpr std::uint16_t kNumbers[kLanes] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                                 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                                 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
  __m512i lanes = _mm512_load_si512(kNumbers);
  unsigned count = 0;
  // No branch a row: it would be guessed wrong too often.
  for (unsigned row = 0; row < rows; ++row) {
    _mm512_storeu_si512(places + count, _mm512_maskz_compress_epi16(masks[row], lanes));
    lanes = _mm512_add_epi16(lanes, set16(kLanes));
    count += static_cast<unsigned>(__builtin_popcount(masks[row]));
  }
  return count;
}

std::size_t pick_bytes(const std::uint8_t* from, const std::uint32_t* masks, unsigned rows, std::uint8_t* packed) {
  std::uint8_t* to = packed;
  for (unsigned row = 0; row < rows; ++row) {
    const __mmask32 mask = masks[row];
    const __m256i values = _mm256_maskz_loadu_epi8(mask, from + row * kLanes);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_maskz_compress_epi8(mask, values));
    to += static_cast<unsigned>(__builtin_popcount(mask));
  }
  return static_cast<std::size_t>(to - packed);
}

std::size_t sparse_pick(unsigned element_size, const std::uint8_t* from, const std::uint32_t* masks, unsigned rows,
                        std::uint8_t* packed) {
  if (element_size == 1) return pick_bytes(from, masks, rows, packed);
  if (element_size != 2) return portable::sparse_pick(element_size, from, masks, rows, packed);
  std::uint8_t* to = packed;
  for (unsigned row = 0; row < rows; ++row) {
    const __mmask32 mask = masks[row];
    // The last row may reach past the end: loads what the mask has, and no more.
    const __m512i values = _mm512_maskz_loadu_epi16(mask, from + 2 * row * kLanes);
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi16(mask, values));
    to += 2 * static_cast<unsigned>(__builtin_popcount(mask));
  }
  return static_cast<std::size_t>(to - packed) / 2;
}

std::size_t place_bytes(const std::uint8_t* packed, const std::uint32_t* masks, unsigned rows, std::uint8_t* to) {
  const std::uint8_t* at = packed;
  for (unsigned row = 0; row < rows; ++row) {
    const __mmask32 mask = masks[row];
    const __m256i values = _mm256_maskz_expand_epi8(mask, _mm512_castsi512_si256(load_apart(at)));
    _mm256_mask_storeu_epi8(to + row * kLanes, mask, values);
    at += static_cast<unsigned>(__builtin_popcount(mask));
  }
  return static_cast<std::size_t>(at - packed);
}

std::size_t sparse_place(unsigned element_size, const std::uint8_t* packed, const std::uint32_t* masks, unsigned rows,
                         std::uint8_t* to) {
  if (element_size == 1) return place_bytes(packed, masks, rows, to);
  if (element_size != 2) return portable::sparse_place(element_size, packed, masks, rows, to);
  const std::uint8_t* at = packed;
  for (unsigned row = 0; row < rows; ++row) {
    const __mmask32 mask = masks[row];
    _mm512_mask_storeu_epi16(to + 2 * row * kLanes, mask, _mm512_maskz_expand_epi16(mask, load_apart(at)));
    at += 2 * static_cast<unsigned>(__builtin_popcount(mask));
  }
  return static_cast<std::size_t>(at - packed) / 2;
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast
