// The first look at a delta frame on AVX-512: how often each token occurs.
#pragma once
#include "codec/avx512_residuals.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

template <class Element>
unsigned max_field_of(const std::uint8_t* base, std::size_t count, ElementRule rule) {
  const __m512i mask = set16(rule.context_mask << rule.context_shift);
  __m512i most = _mm512_setzero_si512();
  const std::size_t steps = count / kLanes;
  for (std::size_t step = 0; step < steps; ++step) {
    ask_ahead<Element>(base, step * kLanes);
    most = _mm512_max_epu16(most, _mm512_and_si512(Element::load(base, step * kLanes), mask));
  }
  alignas(64) std::uint16_t lanes[kLanes];
  _mm512_store_si512(lanes, most);
  unsigned largest = scalar::max_field<typename Element::Word>(base, steps * kLanes, count, rule);
  for (const std::uint16_t lane : lanes) {
    const unsigned field = lane >> rule.context_shift;
    largest = field > largest ? field : largest;
  }
  return largest;
}

unsigned max_field(unsigned element_size, const std::uint8_t* base, std::size_t count, ElementRule rule) {
  return element_size == 1   ? max_field_of<OneByte>(base, count, rule)
         : element_size == 2 ? max_field_of<TwoBytes>(base, count, rule)
                             : portable::max_field(element_size, base, count, rule);
}

// Counts of context << kTokenBits | token. Four tables in turn, for an increment waits for the one before it to the
// same address; small counters keep them all in the first-level cache and are emptied before they can wrap.
template <unsigned kTokenBits>
struct Cells {
  static constexpr unsigned kCount = kMaxContexts << kTokenBits;
  static constexpr unsigned kTables = 4;
  static constexpr unsigned kStepsToFull = 65535 / (kLanes / kTables);
  std::uint16_t cells[kTables][kCount];
  unsigned steps;

  void clear() {
    std::memset(cells, 0, sizeof cells);
    steps = 0;
  }

  void flush(TokenCounts* counts) {
    for (unsigned c = 0; c < kMaxContexts; ++c) {
      for (unsigned t = 0; t < 1u << kTokenBits; ++t) {
        const unsigned cell = c << kTokenBits | t;
        counts[c][t] += cells[0][cell] + cells[1][cell] + cells[2][cell] + cells[3][cell];
      }
    }
    clear();
  }

  TEXTNLP_FAST_INLINE void add(const std::uint64_t* packed, TokenCounts* counts) {
#pragma GCC unroll 8
    for (unsigned word = 0; word < 8; ++word) {
      const std::uint64_t four = packed[word];
      ++cells[0][four & 0xffff];
      ++cells[1][(four >> 16) & 0xffff];
      ++cells[2][(four >> 32) & 0xffff];
      ++cells[3][four >> 48];
    }
    if (++steps == kStepsToFull) flush(counts);
  }
};

template <class Element, unsigned kTokenBits, bool kFloat>
void histogram_dense(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, const DeltaRule& rule,
                     TokenCounts* counts) {
  const ContextOf context_of(rule);
  const Tokenizer tokenize(rule.scheme);
  Cells<kTokenBits> cells;
  cells.clear();
  constexpr std::size_t kBatch = 8;
  alignas(64) std::uint64_t packed[kBatch][8];
  for (std::size_t step = 0; step < steps;) {
    const std::size_t n = steps - step < kBatch ? steps - step : kBatch;
    for (std::size_t i = 0; i < n; ++i, ++step) {
      ask_ahead<Element>(base, step * kLanes);
      ask_ahead<Element>(target, step * kLanes);
      const __m512i from = Element::load(base, step * kLanes);
      const __m512i to = Element::load(target, step * kLanes);
      const Tokens tokens = tokenize.template operator()<false>(Element::template residual_between<kFloat>(to, from));
      _mm512_store_si512(packed[i], _mm512_or_si512(_mm512_slli_epi16(context_of(from), kTokenBits), tokens.token));
    }
    for (std::size_t i = 0; i < n; ++i) cells.add(packed[i], counts);
  }
  cells.flush(counts);
}

void delta_histogram(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                     const DeltaRule* rule, TokenCounts* counts) {
  const std::size_t steps = count / kLanes;
  const bool is_float = rule->element.is_float;
  if (element_size == 2) {
    is_float ? histogram_dense<TwoBytes, 6, true>(target, base, steps, *rule, counts)
             : histogram_dense<TwoBytes, 6, false>(target, base, steps, *rule, counts);
    scalar::delta_histogram<std::uint16_t>(target, base, steps * kLanes, count, *rule, counts);
  } else if (element_size == 1) {
    is_float ? histogram_dense<OneByte, 6, true>(target, base, steps, *rule, counts)
             : histogram_dense<OneByte, 6, false>(target, base, steps, *rule, counts);
    scalar::delta_histogram<std::uint8_t>(target, base, steps * kLanes, count, *rule, counts);
  } else {
    portable::delta_histogram(element_size, target, base, count, rule, counts);
  }
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast
