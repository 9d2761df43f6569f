// Sparse frames of elements of one and two bytes on AVX2: what changed, and the blocks. The rest is portable.
#pragma once
#include "codec/avx2_residuals.h"
#include "codec/sparse_scalar.h"

namespace textnlp_fast {
namespace {
namespace avx2 {

template <class Element>
void survey_of(const std::uint8_t* target, const std::uint8_t* base, std::size_t count, ElementRule rule,
               std::uint64_t most, std::uint32_t* masks, SparseSurvey* survey) {
  __builtin_memset(survey, 0, sizeof *survey);
  const __m128i shift = count_of(rule.context_shift);
  const __m256i mask = set16(rule.context_mask);
  const std::size_t steps = count / kLanes;
  for (std::size_t step = 0; step < steps && survey->changed <= most; ++step) {
    const Pair from = Element::load(base, step * kLanes);
    const Pair to = Element::load(target, step * kLanes);
    const std::uint32_t changed =
        in_lane_order(~bits_of({_mm256_cmpeq_epi16(to.a, from.a), _mm256_cmpeq_epi16(to.b, from.b)}));
    masks[step] = changed;
    survey->changed += static_cast<unsigned>(__builtin_popcount(changed));
    const bool sampled = step % kSampleSteps == 0;
    if (changed == 0 && !sampled) continue;
    alignas(32) std::uint16_t fields[kLanes];
    store256(fields, _mm256_and_si256(_mm256_srl_epi16(from.a, shift), mask));
    store256(fields + 16, _mm256_and_si256(_mm256_srl_epi16(from.b, shift), mask));
    for (std::uint32_t left = changed; left != 0; left &= left - 1) {
      ++survey->changed_by_field[fields[__builtin_ctz(left)]];
    }
    if (!sampled) continue;
    for (const std::uint16_t field : fields) survey->sampled[field] += kSampleSteps;
  }
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

// A whole block.
template <class Element>
void scan_of(const std::uint8_t* base, const SparseRule* rule, SparseBlock* block) {
  const __m128i shift = count_of(rule->element.context_shift);
  const __m256i mask = set16(rule->element.context_mask);
  const __m256i first = set8(rule->context_base);
  const __m256i last = set8(rule->contexts - 1);
  // No context is below 0: then nothing is listed.
  const __m256i last_listed = set8(rule->listed == 0 ? 0 : rule->listed - 1);
  const std::uint32_t any_listed = rule->listed == 0 ? 0 : ~std::uint32_t{0};
  ContextNumbers hazards = {};
  for (unsigned c = 0; c < rule->contexts; ++c) hazards.set(c, rule->hazards[c]);
  Pair sums = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (unsigned row = 0; row < kBlockRows; ++row) {
    const Pair from = Element::load(base, row * kLanes);
    const __m256i field = _mm256_packus_epi16(_mm256_and_si256(_mm256_srl_epi16(from.a, shift), mask),
                                              _mm256_and_si256(_mm256_srl_epi16(from.b, shift), mask));
    const __m256i context = _mm256_subs_epu8(field, first);
    const __m256i listed = _mm256_cmpeq_epi8(_mm256_min_epu8(context, last_listed), context);
    block->listed[row] = any_listed & in_lane_order(static_cast<std::uint32_t>(_mm256_movemask_epi8(listed)));
    store256(block->before[row], sums.a);
    store256(block->before[row] + 16, sums.b);
    const __m256i known = _mm256_min_epu8(context, last);
    const __m256i inside = _mm256_cmpeq_epi8(known, context);
    const Pair hazard = ContextIndex(known).find(hazards);
    const Pair counted = unpack(inside, inside);
    sums.a = _mm256_add_epi16(sums.a, _mm256_and_si256(hazard.a, counted.a));
    sums.b = _mm256_add_epi16(sums.b, _mm256_and_si256(hazard.b, counted.b));
  }
  store256(block->sums, sums.a);
  store256(block->sums + 16, sums.b);
  scalar::sum_columns(*block);
}

void sparse_scan(unsigned element_size, const std::uint8_t* base, std::size_t count, const SparseRule* rule,
                 SparseBlock* block) {
  if (element_size > 2 || count != kBlockElements || rule->element.context_mask > kMostContextMask) {
    portable::sparse_scan(element_size, base, count, rule, block);
  } else if (element_size == 2) {
    scan_of<TwoBytes>(base, rule, block);
  } else {
    scan_of<OneByte>(base, rule, block);
  }
}

}  // namespace avx2
}  // namespace
}  // namespace textnlp_fast
