// Counting delta frames of elements of one and two bytes on AVX-512 in one pass over memory. Which contexts a frame has
// is known when its highest field is, in the end; so fields are counted, in more rows than there are contexts.
#pragma once
#include "codec/avx512_survey.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

constexpr unsigned kRows = 48;
// Rows above the highest field of a sample.
constexpr unsigned kSpareRows = 8;
static_assert(kRows - kSpareRows >= kMaxContexts, "the first row lies below the contexts");

// The highest field of some steps all over the frame.
template <class Element>
unsigned sampled_field(const std::uint8_t* base, std::size_t steps, ElementRule rule) {
  constexpr std::size_t kSamples = 128;
  const __m512i mask = set16(rule.context_mask << rule.context_shift);
  __m512i most = _mm512_setzero_si512();
  for (std::size_t step = 0; step < steps; step += steps / kSamples + 1) {
    most = _mm512_max_epu16(most, _mm512_and_si512(Element::load(base, step * kLanes), mask));
  }
  return largest_lane(most) >> rule.context_shift;
}

// Counts whole steps in rows, the field `first_field` and those below it in the first one, and returns the highest
// field. What lies above the last row has been counted there.
template <class Element, bool kFloat>
unsigned count_rows(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, const DeltaRule& rule,
                    unsigned first_field, TokenCounts* counts) {
  const Tokenizer tokenize(rule.scheme);
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(rule.element.context_shift));
  const __m512i mask = set16(rule.element.context_mask);
  const __m512i first = set16(first_field);
  const __m512i last = set16(kRows - 1);
  __m512i most = _mm512_setzero_si512();
  count_steps<Element, kFloat, kRows>(target, base, steps, tokenize, counts,
                                      [&](__m512i from) TEXTNLP_FAST_INLINE_LAMBDA {
                                        const __m512i field = _mm512_and_si512(_mm512_srl_epi16(from, shift), mask);
                                        most = _mm512_max_epu16(most, field);
                                        return _mm512_min_epu16(_mm512_subs_epu16(field, first), last);
                                      });
  return largest_lane(most);
}

template <class Element, bool kFloat>
void count_dense(const std::uint8_t* target, const std::uint8_t* base, std::size_t count, DeltaRule& rule,
                 TokenCounts* counts) {
  using Word = typename Element::Word;
  const std::size_t steps = count / kLanes;
  unsigned most = scalar::max_field<Word>(base, steps * kLanes, count, rule.element);
  const unsigned sampled = sampled_field<Element>(base, steps, rule.element);
  most = sampled > most ? sampled : most;
  TokenCounts rows[kRows];
  unsigned first = 0;
  // Twice, where a field lies far above all of the sample.
  for (unsigned top = most + kSpareRows;; top = most) {
    first = top >= kRows ? top - (kRows - 1) : 0;
    std::memset(rows, 0, sizeof rows);
    const unsigned highest = count_rows<Element, kFloat>(target, base, steps, rule, first, rows);
    most = highest > most ? highest : most;
    if (most < first + kRows) break;
  }
  scalar::set_contexts(rule, most);
  for (unsigned row = 0; row < kRows; ++row) {
    TokenCounts& context = counts[scalar::context_of_field(first + row, rule)];
    for (unsigned t = 0; t < 1u << kTokenBits; ++t) context[t] += rows[row][t];
  }
  scalar::delta_histogram<Word>(target, base, steps * kLanes, count, rule, counts);
}

void delta_count(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                 DeltaRule* rule, TokenCounts* counts) {
  const bool is_float = rule->element.is_float;
  if (element_size > 2) {
    portable::delta_count(element_size, target, base, count, rule, counts);
  } else if (element_size == 2) {
    is_float ? count_dense<TwoBytes, true>(target, base, count, *rule, counts)
             : count_dense<TwoBytes, false>(target, base, count, *rule, counts);
  } else {
    is_float ? count_dense<OneByte, true>(target, base, count, *rule, counts)
             : count_dense<OneByte, false>(target, base, count, *rule, counts);
  }
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast
